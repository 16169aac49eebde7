"""Federations: members and core nodes, this node's link to one, and what nodes publish for each other.

Nodes need not reach each other's gateways: they exchange requests and responses through the federation's
store, each under its own prefix, on leases that expire.
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
    """The federation's identity, stored under `keys.federation()`."""

    name: Name
    id: str = Field(max_length=64)  # unique, also part of its certificate authority's name
    created_at: Timestamp
    created_by: NodeName
    ca: str = Field(max_length=20_000)  # the authority's certificate, PEM


class Link(Record):
    """The federation that this node has joined, stored in the node's own store under `keys.link(node)`.

    Certificate and key are files in MAO_FEDERATION_DIR; `generation` is incremented with each new pair, so
    that every service notices. Without a link, the node's own store is its federation.
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
    """State of the replica of the federation's records, stored in the node's own store by its registry.

    The copies under `keys.known_prefix(node)` reflect the federation's store at `revision` (time `as_of`) or
    later. A change that the replication budget delays holds both back.
    """

    federation: str = Field(max_length=80)  # `Link.id`, or the configured address
    revision: int = 0
    as_of: Timestamp | None = None  # None: no complete copy yet
    reachable: bool = False
    away_since: Timestamp | None = None
    reason: str = Field(default="", max_length=2000)  # why it is unreachable
    next: str = Field(default="", max_length=2000)  # how to fix that
    removed: bool = False  # the federation is reachable but has removed this node


class Identity(Record):
    """A node's membership record, written by core nodes under `keys.identity(node)`.

    `user` ends in a number that is incremented with each invitation, so that old certificates stay invalid.
    `certificate` was issued for the request whose digest is `request`.
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
    """A node's certificate request, stored under `keys.certificate_request(node)`.

    Written by the invitation first, then by the node. `leaving`: the node requests its removal instead.
    """

    node: NodeName
    request: str = Field(max_length=20_000)  # PEM
    requested_at: Timestamp
    leaving: bool = False


class CoreMember(Record):
    """A core node and the addresses of its etcd member, stored under `keys.core(node)`."""

    node: NodeName
    member_id: str = Field(max_length=40)  # hexadecimal, as etcdctl prints it
    client: Endpoint
    peer: Endpoint
    learner: bool = False


class FederationState(Record):
    """A federation as seen by one of its nodes.

    `advice`: recommendations for its operators; `warnings`: problems of its etcd; `role`: `removed` on a node
    that the federation has removed.
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
    """Result of joining. `published`: records of the node new to the federation, such as `tool NAME`."""

    published: list[str] = Field(default_factory=list)


class NodeState(Record):
    """A node of a federation.

    `seat`: the role of its etcd member; `answers`: whether that member answers (None: no member); `healthy`:
    whether it also has quorum.
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
    core_address: Endpoint | None = None  # address of its etcd if it were promoted
    invited_at: Timestamp
    joined_at: Timestamp | None = None
    expires_at: Timestamp | None = None  # expiry of its certificate


class FederationRequest(Record):
    """Body of `POST /federation`."""

    name: Name = Field(examples=["observatory"])
    allow_unsafe_etcd_that_ignores_key_rights: bool = False


class InvitationRequest(Record):
    """Body of `POST /federation/invitations`."""

    node: NodeName
    valid: Seconds = Field(default=86_400, ge=60, le=30 * 86_400)


class Invitation(Record):
    """An invitation. `token` is a secret: its bearer can join as the node, once, until `expires_at`."""

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
    """Result of a demotion; False `was_core` means that there was nothing to do."""

    node: NodeName
    was_core: bool


class Departure(Record):
    """Result of leaving a federation.

    `struck`: the federation has removed the node too. `known`: the node keeps the federation's records; if
    false, it continues with those it had before it joined.
    """

    federation: str
    struck: bool
    known: bool


KEPT_BRIEFS = 30
Commit = Annotated[str, Field(max_length=64)]
MAX_REASON_LENGTH = 500
MAX_LOG_ANSWER = 256 << 10  # bytes of a log sent through the store


class RunBrief(Record):
    """Summary of a run. `snapshots`: commits by dataset."""

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
    """A node's latest runs of a pipeline, newest first, stored under `keys.peer_runs(node, pipeline)`.

    `next_tick`: the next tick of its schedule; None without a schedule or while it is paused.
    """

    node: NodeName
    pipeline: Name
    pipeline_revision: int = 0  # of the pipeline's record that the node runs
    runs: list[RunBrief] = Field(default_factory=list, max_length=KEPT_BRIEFS)
    next_tick: Timestamp | None = None
    updated_at: Timestamp


MAX_TICKS = 300  # of a strip
KEPT_EXCEPTIONS = 40  # ticks of a strip of which the run is named


class TickException(Record):
    """A tick that did not simply succeed: its place in the strip, its run, and its time."""

    at: int = Field(ge=0, lt=MAX_TICKS)
    run: str = Field(max_length=200)
    tick: Timestamp


class TickStrip(Record):
    """The last ticks of a pipeline on a node, stored under `keys.peer_ticks(node, pipeline)`.

    `marks`: a letter a tick, oldest first: s succeeded, L late, f failed, m missed, l lost, x cancelled,
    r running, w waiting, q quarantined; other letters are of newer versions. Runs by hand count as ticks.
    `first`: time of the first mark. `recent`: how many of the newest marks are of the 24 hours before
    `updated_at`. `exceptions`: the newest of the marks other than s. `last`: the newest run. `schedules`:
    cron strings with their zones, and which are paused.
    """

    node: NodeName
    pipeline: Name
    marks: str = Field(default="", max_length=MAX_TICKS, pattern=r"^[A-Za-z?]*$")
    first: Timestamp | None = None
    recent: int = Field(default=0, ge=0, le=MAX_TICKS)
    exceptions: list[TickException] = Field(default_factory=list, max_length=MAX_TICKS)
    last: RunBrief | None = None
    next_tick: Timestamp | None = None
    paused: bool = False
    schedules: list[str] = Field(default_factory=list, max_length=100)
    updated_at: Timestamp


class PeerNode(Record):
    """When a node was last seen, under `keys.peer_node(node)`; has no lease, so it outlives the node."""

    version: str = Field(max_length=100)
    seen_at: Timestamp


class Endorsement(Record):
    """Statement that a node's operator wrote the record of this digest.

    Stored under `keys.endorsement(node, kind, name)`, where only the node itself can write, so that no node
    can attribute a definition to another.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    endorsed_at: Timestamp


class Participation(Record):
    """Statement that a node writes to a dataset and votes on it.

    Stored under `keys.part(node, dataset)`, where only the node itself can write, so that no other node can
    remove it or add nodes that do not exist.
    """

    dataset: Name
    since: Timestamp  # of the enrolment


class LogAsk(Record):
    """A request by `node` for the end of a log of node `of`, stored under `keys.ask(node, id)` on a lease."""

    id: str = Field(max_length=64)
    node: NodeName
    of: NodeName
    run: str = Field(max_length=200)
    step: Name | None = None  # None: the last step that ran
    tail: int = Field(default=1000, ge=1, le=100_000)  # lines


class LogAnswer(Record):
    """The response to a LogAsk, stored under `keys.answer(node, id)` on a lease. `cut`: it is truncated."""

    id: str = Field(max_length=64)
    status: Literal["ok", "refused", "not-found", "failed"]
    step: str = Field(default="", max_length=64)  # the step of the log
    text: str = ""
    cut: bool = False
    detail: str = Field(default="", max_length=2000)


class NodePart(Record):
    """A node of the federation as seen by another one, whether present or not.

    `last_seen`: accurate to minutes; None for a node that is known only because a dataset lists it.
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
    datasets: list[Name] = Field(default_factory=list)  # that it votes on


class NodeRuns(Record):
    """A node's runs of a pipeline as seen by another node.

    `late`: why the node counts as late; `problem`: why its runs are unknown.
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
