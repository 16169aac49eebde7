"""Consent: what the operator is shown of a changed pipeline, approves, and whom the operator trusts."""

from __future__ import annotations

from pydantic import Field

from .common import Name, NodeName, Record, Timestamp
from .models_pipeline import Agreement

DEFINITION = r"^[0-9a-f]{32}$"


class Rebuilt(Record):
    """An image by what its runs use (`pinned`) and what its name means on this node now (`here`)."""

    pinned: str
    here: str


class PipelineDiff(Record):
    """What this node runs of a pipeline against what is registered now.

    `definition` names what is registered: the pipeline and all that it refers to, as it would run here. An
    approval bears it, so that nothing is approved that was not shown. `agree`: words that the operator would
    have to grant; `endorsed`: for each record that changed, the trusted nodes that stand for it; `rebuilt`:
    images that this node has by now in another build than the one its runs use, by name.
    """

    pipeline: Name
    enrolled: bool
    definition: str = Field(pattern=DEFINITION)
    pending: list[str] = Field(default_factory=list)
    diff: str = ""  # unified, of YAML; empty when nothing would change
    agree: list[str] = Field(default_factory=list)
    endorsed: dict[str, list[str]] = Field(default_factory=dict)
    rebuilt: dict[str, Rebuilt] = Field(default_factory=dict)


class Approval(Record):
    """Body of `POST /pipeline/{name}/approve`: `definition` as the diff had it, and what is granted."""

    definition: str = Field(pattern=DEFINITION, examples=["1f3a5c7d9b2e4a601f3a5c7d9b2e4a60"])
    agree: Agreement = Field(default_factory=list)


class Trust(Record):
    """Stored under `keys.trusted(node, author)`: what `node`'s operator changes is taken over unasked."""

    key_field = "node"
    node: NodeName
    since: Timestamp
