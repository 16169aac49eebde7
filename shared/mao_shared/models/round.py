"""How a dataset's ground truth is voted: VDX's words, and ours for files, keys and fields.

VDX is the voting definition specification of the literature (EcePanos/vdx); its words and defaults are kept.
What VDX does not have (files, record keys, exact values) has fields of its own here.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from .common import Record, Seconds

Quorum = Literal["UNTIL", "ALL_BUT"]
Exclusion = Literal["NONE", "FURTHEST", "OUTSIDE_SIGMA"]
HistoryRule = Literal["NONE", "STANDARD", "MODULE_ELIMINATION", "HYBRID"]
Collation = Literal["AGREEMENT", "MEAN", "MEAN_NEAREST_NEIGHBOR"]
Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


def _upper(value: Any) -> Any:
    return value.upper().replace("-", "_").replace(" ", "_") if isinstance(value, str) else value


Upper = BeforeValidator(_upper)


class VoteParams(Record):
    """`error` is relative: two numbers agree when they differ by at most this part. `scaling`: HYBRID's."""

    model_config = ConfigDict(populate_by_name=True)

    error: float = Field(default=0.05, ge=0, lt=1, allow_inf_nan=False)
    scaling: float = Field(
        default=2,
        gt=1,
        le=1000,
        allow_inf_nan=False,
        validation_alias=AliasChoices("scaling", "soft_threshold"),
    )


class FileRule(Record):
    """How files whose path matches `path` (as fnmatch, the first rule that matches counts) are voted.

    `ignore`: fields that are left out of the vote and of the result. `volatile`: fields that are expected to
    differ, such as the time of collection: they are taken over and count as no disagreement. `atomic`:
    `record` takes a record whole from one node, `field` decides field by field. `error`: tolerance for
    this file's numbers in place of `params.error`. `opaque`: the file is voted as a whole.
    """

    path: str = Field(default="*", min_length=1, max_length=1000, examples=["metrics/*.csv"])
    key: list[str] = Field(default_factory=list, max_length=50)
    ignore: list[str] = Field(default_factory=list, max_length=2000)
    volatile: list[str] = Field(default_factory=list, max_length=2000)
    atomic: Literal["field", "record"] = "field"
    error: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    opaque: bool = False


class VoteDefinition(Record):
    """The vote of one dataset. Unset `quorum`: more than half of the nodes, and at least two.

    `UNTIL`: at least `quorum_percentage` of the nodes must vote; `ALL_BUT`: at most so many may be missing.
    `exclusion_threshold`: how many values (FURTHEST) or how many sigma (OUTSIDE_SIGMA).
    `collation`: `AGREEMENT` (ours) takes the value that most nodes agree on, see docs/ground-truth.md.
    `deadline`: how long a round waits for the nodes' snapshots after the first one.
    """

    algorithm_name: str = Field(default="", max_length=200)
    quorum: Annotated[Quorum, Upper] | None = None
    quorum_percentage: Percentage | None = None
    exclusion: Annotated[Exclusion, Upper] = "NONE"
    exclusion_threshold: float = Field(default=0, ge=0, allow_inf_nan=False)
    history: Annotated[HistoryRule, Upper] = "NONE"
    params: VoteParams = Field(default_factory=VoteParams)
    collation: Annotated[Collation, Upper] = "AGREEMENT"
    bootstrapping: bool = False
    deadline: Seconds = Field(default=3600, ge=1, le=30 * 86400)
    files: list[FileRule] = Field(default_factory=list, max_length=1000)
    weights: dict[str, Annotated[float, Field(ge=1e-6, le=1e6)]] = Field(
        default_factory=dict, max_length=1000
    )

    @model_validator(mode="after")
    def _quorum_is_whole(self) -> Self:
        if (self.quorum is None) != (self.quorum_percentage is None):
            raise ValueError("'quorum' and 'quorum_percentage' go together")
        return self

    def rule_for(self, path: str) -> FileRule:
        """The rule of a file; the default one where none matches."""
        return next((rule for rule in self.files if fnmatchcase(path, rule.path)), FileRule())

    def needed(self, nodes: int) -> int:
        """How many of `nodes` must have voted (and must attest) for a result; never below one."""
        if self.quorum is None or self.quorum_percentage is None:
            return max(nodes // 2 + 1, min(2, nodes), 1)
        share = self.quorum_percentage if self.quorum == "UNTIL" else 100 - self.quorum_percentage
        return max(-int(-nodes * share // 100), 1)
