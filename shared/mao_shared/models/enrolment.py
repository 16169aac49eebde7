"""Enrolments: a node's decision to run a pipeline, with a self-contained copy of all that it needs."""

from __future__ import annotations

from pydantic import Field

from .alarm import ControlMetric
from .check import Checks
from .common import GROUND_TRUTH, Bytes, Name, NodeName, Record, Timestamp
from .pipeline import Agreement, LateTruth, OptionalTitle, Overlap, Pipeline, RecordEnv, Retry
from .round import VoteDefinition
from .secret import SecretRefs
from .tool import Limits, Network, Privileges, Pull, asked


class ResolvedImage(Record):
    """An image pinned by digest. `pinned` is what runs, even if the tag moves later."""

    name: str  # as in the tool's record
    pinned: str  # repository@sha256:… or, for an image built on this node, its id sha256:…
    platform: str  # os/architecture[/variant]


class DatasetRef(Record):
    """A dataset as registered at the time of enrolment. `vote` and `lfs_above`: for output datasets only.

    They stay in force on this node even if the dataset's record changes.
    """

    name: Name
    master: str
    branch: str
    vote: VoteDefinition | None = None
    lfs_above: Bytes | None = None


class ResolvedStep(Record):
    """A step with all defaults resolved; the runner and the data manager need nothing else."""

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
    checks: Checks = Field(default_factory=list)
    secrets: SecretRefs = Field(default_factory=list)
    record_env: RecordEnv = False

    @property
    def reads_truth(self) -> bool:
        """True if the step reads ground truth, and so may have to wait for a round."""
        return self.input is not None and self.input.branch == GROUND_TRUTH

    def asked(self) -> list[str]:
        """Return the privileges, network and secrets that the operator granted to this step's tool."""
        return asked(self.privileges, self.network, self.secrets)


class Enrolment(Record):
    """A node's enrolment in a pipeline; it runs from this copy, even if the federation is unreachable.

    `records`: digest of each record that it was resolved from, by `kind/name`, to detect changes.
    `approved_by`: `operator`, or `trusted:<nodes>` for a change adopted because these nodes endorse it.
    """

    key_field = "pipeline"
    pipeline: Name
    title: OptionalTitle = None  # of the pipeline, if it has one
    node: NodeName
    steps: list[ResolvedStep] = Field(min_length=1)
    overlap: Overlap = "skip"
    agreed: list[str] = Field(default_factory=list)
    pipeline_revision: int  # of the pipeline's record that this was resolved from
    enrolled_at: Timestamp
    records: dict[str, str] = Field(default_factory=dict)
    approved_by: str = Field(default="operator", max_length=2000)

    @property
    def outputs(self) -> set[str]:
        """The names of the datasets that it writes."""
        return {step.output.name for step in self.steps}


class EnrolmentRequest(Record):
    """Body of `PUT /enrolments/{pipeline}`: granted privileges and when to pull, as in `PipelineInit`."""

    agree: Agreement = Field(default_factory=list)
    pull: Pull = "missing"


class PipelineState(Pipeline):
    """A pipeline and this node's enrolment in it, as listed by `GET /pipeline`.

    `outdated`: the registered definition differs from the one that runs here; `pending`: the differences. The
    old definition runs until `POST /pipeline/{name}/approve`.
    """

    enrolled: bool = False
    outdated: bool = False
    pending: list[str] = Field(default_factory=list)
    enrolment: Enrolment | None = None


DEFINITION = r"^[0-9a-f]{32}$"


class Rebuilt(Record):
    """A rebuilt image: the digest that runs use (`pinned`) and what its tag resolves to here now (`here`)."""

    pinned: str
    here: str


class PipelineDiff(Record):
    """Difference between a pipeline as it runs on this node and as it is registered now.

    `definition`: digest of the registered pipeline and all that it refers to, as it would run here. An
    approval repeats it, so that nothing is approved that was not shown. `agree`: privileges the operator
    would have to grant; `endorsed`: for each changed record, the trusted nodes that endorse it, empty if
    this node trusts none; `rebuilt`: images whose tag now resolves to another build than the runs use, by
    name.
    """

    pipeline: Name
    enrolled: bool
    definition: str = Field(pattern=DEFINITION)
    pending: list[str] = Field(default_factory=list)
    diff: str = ""  # unified diff of YAML; empty if nothing would change
    agree: list[str] = Field(default_factory=list)
    endorsed: dict[str, list[str]] = Field(default_factory=dict)
    rebuilt: dict[str, Rebuilt] = Field(default_factory=dict)


class Approval(Record):
    """Body of `POST /pipeline/{name}/approve`: `definition` from the diff, and what is granted."""

    definition: str = Field(pattern=DEFINITION, examples=["1f3a5c7d9b2e4a601f3a5c7d9b2e4a60"])
    agree: Agreement = Field(default_factory=list)


class Trust(Record):
    """A trusted author, under `keys.trusted(node, author)`: changes are adopted without approval."""

    key_field = "node"
    node: NodeName
    since: Timestamp
