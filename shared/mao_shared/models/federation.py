"""The federation: its members and core nodes, how this node reaches it, and what nodes show each other.

Nodes need not reach each other's gateways: they ask and answer through the federation's store, each under its
own prefix, on leases that end by themselves.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from mao_shared.states import RunPhase

from .common import Name, NodeName, Record, Seconds, Timestamp
from .run import Run

Role = Literal["core", "client"]
Endpoint = str  # host:port of an etcd member for clients


class FederationInfo(Record):
    """Stored under `keys.federation()`."""

    name: Name
    id: str = Field(max_length=64)  # fresh with every federation, also in its authority's name
    created_at: Timestamp
    created_by: NodeName
    ca: str = Field(max_length=20_000)  # the authority's certificate, PEM


class Link(Record):
    """Stored in the node's own store under `keys.link(node)`: the federation that this node has joined.

    The certificate and key lie as files in MAO_FEDERATION_DIR; `generation` grows with each new pair, so that
    every service notices. Absent: the node's own store is its federation.
    """

    federation: Name
    id: str = Field(max_length=64)
    node: NodeName
    user: str = Field(max_length=120)  # etcd user = common name of the certificate
    endpoints: list[Endpoint] = Field(min_length=1, max_length=20)
    role: Role = "client"
    joined_at: Timestamp
    generation: int = 1


class Contact(Record):
    """Stored in the node's own store under `keys.contact(node)` by its registry: the federation as last seen.

    The copies under `keys.known_prefix(node)` are what the federation's store held at `revision`, at `as_of`,
    or later: where one has changed often, or too much, all are vouched for only up to before that change.
    """

    federation: str = Field(max_length=80)  # which one: `Link.id`, or the plain address that is set
    revision: int = 0
    as_of: Timestamp | None = None  # None: there is no whole copy yet
    reachable: bool = False
    away_since: Timestamp | None = None
    reason: str = Field(default="", max_length=2000)  # why it is not reachable
    next: str = Field(default="", max_length=2000)  # and what a person can do
    removed: bool = False  # it is, and does not let this node in any more


class Identity(Record):
    """Stored under `keys.identity(node)`, written by core nodes: the node's place in the federation.

    `user` has a number that grows whenever the node is invited again: an old certificate never revives.
    `certificate` answers the request of the same digest.
    """

    node: NodeName
    user: str = Field(max_length=120)
    role: Role = "client"
    state: Literal["invited", "joined", "removed"] = "invited"
    invited_at: Timestamp
    joined_at: Timestamp | None = None
    removed_at: Timestamp | None = None
    request: str | None = None  # sha256 of the certificate request that was answered
    certificate: str | None = Field(default=None, max_length=20_000)  # PEM
    expires_at: Timestamp | None = None


class CertificateRequest(Record):
    """Stored under `keys.certificate_request(node)` by the node or, at first, by its invitation.

    `leaving`: the node asks to be removed instead.
    """

    node: NodeName
    request: str = Field(max_length=20_000)  # PEM
    requested_at: Timestamp
    leaving: bool = False


class CoreMember(Record):
    """Stored under `keys.core(node)`: a node that runs a voting etcd member, and where that listens."""

    node: NodeName
    member_id: str = Field(max_length=40)  # hexadecimal, as etcdctl prints it
    client: Endpoint
    peer: Endpoint
    learner: bool = False


class FederationState(Record):
    """A federation as one of its nodes sees it. `advice`: what its operators should do; `warnings`: what
    is wrong with its etcd.

    `role` is `removed` on a node that the federation has removed.
    """

    name: Name
    id: str
    created_at: Timestamp
    created_by: NodeName
    node: NodeName
    user: str
    role: Role | Literal["removed"]
    endpoints: list[Endpoint]
    joined_at: Timestamp
    certificate_expires_at: Timestamp | None = None
    fingerprint: str = ""  # SHA-256 of the authority's certificate
    cores: list[NodeName] = Field(default_factory=list)
    reachable: bool = True
    advice: str | None = None
    warnings: list[str] = Field(default_factory=list)


class Joined(FederationState):
    """`published`: which of the node's records became new ones of the federation, as `tool NAME`."""

    published: list[str] = Field(default_factory=list)


class NodeState(Record):
    """A node of a federation. `seat`: its part in etcd; `answers`: whether that does, None without one;
    `healthy`: whether it also has a majority around it.
    """

    node: NodeName
    state: Literal["invited", "joined", "removed"]
    present: bool
    role: Role
    seat: Literal["voter", "learner"] | None = None
    healthy: bool | None = None
    answers: bool | None = None
    etcd: Endpoint | None = None
    version: str | None = None
    core_address: Endpoint | None = None  # where its etcd would be reached if it were promoted
    invited_at: Timestamp
    joined_at: Timestamp | None = None
    expires_at: Timestamp | None = None  # its certificate's end


class FederationRequest(Record):
    """Body of `POST /federation`."""

    name: Name
    allow_unsafe_etcd_that_ignores_key_rights: bool = False


class InvitationRequest(Record):
    """Body of `POST /federation/invitations`."""

    node: NodeName
    valid: Seconds = Field(default=86_400, ge=60, le=30 * 86_400)


class Invitation(Record):
    """`token` is a secret: who has it can become the node, once and until `expires_at`."""

    federation: Name
    node: NodeName
    token: str
    fingerprint: str
    expires_at: Timestamp


class JoinRequest(Record):
    """Body of `POST /federation/join`."""

    token: str = Field(max_length=1_000_000, examples=["mao1.eNq1lV2PqzYQ…"])
    allow_unsafe_etcd_that_ignores_key_rights: bool = False


class Demotion(Record):
    """The result of a demotion; without `was_core` there was nothing to do."""

    node: NodeName
    was_core: bool


class Departure(Record):
    """The result of leaving a federation.

    `struck`: nothing is left to do there. `known`: the node continues with the federation's
    records, else with those it had before it joined.
    """

    federation: str
    struck: bool
    known: bool


KEPT_BRIEFS = 30
Commit = Annotated[str, Field(max_length=64)]
MAX_REASON_LENGTH = 500
MAX_LOG_ANSWER = 256 << 10  # bytes of a log that travel through the store


class RunBrief(Record):
    """A run in short. `snapshots`: dataset → commit."""

    id: str = Field(max_length=200)
    trigger: str = Field(max_length=40)
    phase: RunPhase
    scheduled_for: Timestamp | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    snapshots: dict[Name, Commit] = Field(default_factory=dict, max_length=100)
    reason: str | None = Field(default=None, max_length=MAX_REASON_LENGTH)

    @classmethod
    def of(cls, run: Run) -> Self:
        reason = run.error.detail if run.error else run.reason
        return cls(
            id=run.id,
            trigger=run.trigger,
            phase=run.phase,
            scheduled_for=run.scheduled_for,
            started_at=run.started_at,
            finished_at=run.finished_at,
            snapshots={step.spec.output.name: step.snapshot for step in run.steps if step.snapshot},
            reason=reason[:MAX_REASON_LENGTH] if reason else None,
        )


class PeerRuns(Record):
    """Stored under `keys.peer_runs(node, pipeline)`: its latest runs, the newest first.

    `next_tick`: when its schedule runs it next; None: no schedule, or paused.
    """

    node: NodeName
    pipeline: Name
    pipeline_revision: int = 0  # of the definition that the node runs
    runs: list[RunBrief] = Field(default_factory=list, max_length=KEPT_BRIEFS)
    next_tick: Timestamp | None = None
    updated_at: Timestamp


class PeerNode(Record):
    """Stored under `keys.peer_node(node)`: written every few minutes, so that it stays when the node goes."""

    version: str = Field(max_length=100)
    seen_at: Timestamp


class Endorsement(Record):
    """Stored under `keys.endorsement(node, kind, name)`: the node's operator wrote the record of this digest.

    Only the node itself can write there, so that nobody can pass a definition off as another's.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    endorsed_at: Timestamp


class Participation(Record):
    """Stored under `keys.part(node, dataset)`: the node writes to the dataset and votes on it.

    Only the node itself can write there, so that nobody else can remove it or invent nodes.
    """

    dataset: Name
    since: Timestamp  # of the enrolment


class LogAsk(Record):
    """Stored under `keys.ask(node, id)` on a lease: `node` wants the end of a log of `of`."""

    id: str = Field(max_length=64)
    node: NodeName
    of: NodeName
    run: str = Field(max_length=200)
    step: Name | None = None  # None: the latest that ran
    tail: int = Field(default=1000, ge=1, le=100_000)  # lines


class LogAnswer(Record):
    """Stored under `keys.answer(node, id)` on a lease. `cut`: the log is longer than what is here."""

    id: str = Field(max_length=64)
    status: Literal["ok", "refused", "not-found", "failed"]
    step: str = Field(default="", max_length=64)  # whose log it is
    text: str = ""
    cut: bool = False
    detail: str = Field(default="", max_length=2000)


class NodePart(Record):
    """A node of the federation as another one sees it, present or not.

    `last_seen` is minutes exact; None for a node of which nothing is known but that a dataset lists it.
    """

    name: NodeName
    present: bool
    version: str | None = None
    last_seen: Timestamp | None = None
    started_at: Timestamp | None = None
    slots: int | None = None
    cpus: int | None = None
    memory: int | None = None  # bytes
    labels: dict[str, str] = Field(default_factory=dict)
    logs_shared: bool = False
    trusted: bool = False  # by this node's operator
    datasets: list[Name] = Field(default_factory=list)  # in which it has a say


class NodeRuns(Record):
    """A node's runs of a pipeline as another one sees them; `late`: why it counts as late.

    `problem`: why nothing is known of its runs.
    """

    node: NodeName
    pipeline: Name
    present: bool
    version: str | None = None
    runs: list[RunBrief] = Field(default_factory=list)
    next_tick: Timestamp | None = None
    updated_at: Timestamp | None = None
    late: str | None = None
    problem: str | None = None
