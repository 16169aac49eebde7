"""Federation: who belongs to it, and how this node reaches it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Name, NodeName, Record, Seconds, Timestamp

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

    `user` bears a number that grows whenever the node is invited again: an old certificate never revives.
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

    `leaving`: the node asks to be struck off instead.
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
    """A federation as one of its nodes sees it. `advice`: what its operators had better do; `warnings`: what
    is wrong with its etcd.

    `role` is `removed` on a node that the federation has struck off.
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
    """`was_core`: else there was nothing to do."""

    node: NodeName
    was_core: bool


class Departure(Record):
    """What leaving came to.

    `struck`: nothing is left to be done for it there. `known`: the node goes on with the federation's
    records, else with those it had before it joined.
    """

    federation: str
    struck: bool
    known: bool
