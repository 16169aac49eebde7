"""Enrolments: a node's consent to take part in a pipeline, as a self-contained copy of all it needs."""

from __future__ import annotations

from pydantic import Field

from .alarm import ControlMetric
from .common import GROUND_TRUTH, Bytes, Name, NodeName, Record, Timestamp
from .pipeline import Agreement, LateTruth, OptionalTitle, Overlap, Pipeline, Retry
from .round import VoteDefinition
from .tool import Limits, Network, Privileges, Pull, asked


class ResolvedImage(Record):
    """An image pinned by content: `pinned` is what runs, wherever the tag points later."""

    name: str  # as the tool's record has it
    pinned: str  # repository@sha256:… or, for an image built on this node, its id sha256:…
    platform: str  # os/architecture[/variant]


class DatasetRef(Record):
    """A dataset as it was known at enrolment. `vote` and `lfs_above`: of one that is written.

    This node votes by this definition and keeps to this limit, even if the dataset's record changes.
    """

    name: Name
    master: str
    branch: str
    vote: VoteDefinition | None = None
    lfs_above: Bytes | None = None


class ResolvedStep(Record):
    """A step with everything filled in; the runner and the data manager need nothing else."""

    name: Name
    tool: Name
    image: ResolvedImage
    command: list[str] | None = None
    env: dict[str, str] = Field(default_factory=dict)
    limits: Limits = Field(default_factory=Limits)
    network: Network = "bridge"
    privileges: Privileges = Field(default_factory=Privileges)
    output: DatasetRef  # branch: the node's name
    input: DatasetRef | None = None  # branch: ground-truth unless the step names another
    retry: Retry = Field(default_factory=Retry)
    allow_empty: bool = False
    on_late_truth: LateTruth = "skip"
    metrics: list[ControlMetric] = Field(default_factory=list)

    @property
    def reads_truth(self) -> bool:
        """True if the step reads ground truth, so that it may have to wait for a round."""
        return self.input is not None and self.input.branch == GROUND_TRUTH

    def asked(self) -> list[str]:
        """Return what the operator agreed to for this step's tool."""
        return asked(self.privileges, self.network)


class Enrolment(Record):
    """Stored on the node; the pipeline runs from this copy when the federation is unreachable.

    `records`: `kind/name` of what it was resolved from → digest, so that a change is noticed. `approved_by`:
    `operator`, or `trusted:<nodes>` for a change that was adopted because these nodes endorse it.
    """

    key_field = "pipeline"
    pipeline: Name
    title: OptionalTitle = None  # the pipeline's, if it has one
    node: NodeName
    steps: list[ResolvedStep] = Field(min_length=1)
    overlap: Overlap = "skip"
    agreed: list[str] = Field(default_factory=list)
    pipeline_revision: int  # of the definition this was resolved from
    enrolled_at: Timestamp
    records: dict[str, str] = Field(default_factory=dict)
    approved_by: str = Field(default="operator", max_length=2000)

    @property
    def outputs(self) -> set[str]:
        """The datasets that it writes."""
        return {step.output.name for step in self.steps}


class EnrolmentRequest(Record):
    """Body of `PUT /enrolments/{pipeline}`: what is granted and when to pull, as in `PipelineInit`."""

    agree: Agreement = Field(default_factory=list)
    pull: Pull = "missing"


class PipelineState(Pipeline):
    """A pipeline and this node's part in it, as `GET /pipeline` lists it.

    `outdated`: what is registered differs from what runs here; `pending` lists how. The old definition runs
    until `POST /pipeline/{name}/approve`.
    """

    enrolled: bool = False
    outdated: bool = False
    pending: list[str] = Field(default_factory=list)
    enrolment: Enrolment | None = None


DEFINITION = r"^[0-9a-f]{32}$"


class Rebuilt(Record):
    """An image by what its runs use (`pinned`) and what its name means on this node now (`here`)."""

    pinned: str
    here: str


class PipelineDiff(Record):
    """What this node runs of a pipeline against what is registered now.

    `definition` names what is registered: the pipeline and all that it refers to, as it would run here. An
    approval repeats it, so that nothing is approved that was not shown. `agree`: what the operator would have
    to grant; `endorsed`: for each record that changed, the trusted nodes that stand for it; `rebuilt`: images
    of which this node has another build by now than its runs use, by name.
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
    """Stored under `keys.trusted(node, author)`: what `node`'s operator changes is adopted without asking."""

    key_field = "node"
    node: NodeName
    since: Timestamp
