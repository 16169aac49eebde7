"""Pure: etcd users and roles of a federation, and what each role may do.

A user is the common name of a certificate. `<node>@<n>`: the node itself; n grows with every invitation, so that an
old certificate never becomes valid again. `<node>@<n>-join`: the invitation, which may only ask for the
node's certificate. No node's name holds an `@`.
"""

from __future__ import annotations

from mao_shared import keys
from mao_shared.models import Identity
from mao_shared.store.etcd_auth import Grant

ROOT = "root"  # etcd's own role of those who may do everything; also a user, which etcd demands


def user_of(node: str, number: int) -> str:
    return f"{node}@{number}"


def next_user(node: str, before: Identity | None) -> str:
    """The user of a new invitation."""
    number = int(before.user.rpartition("@")[2]) if before else 0
    return user_of(node, number + 1)


def invitation_user(user: str) -> str:
    return f"{user}-join"


def member_role(node: str) -> str:
    return f"member-{node}"


def invitation_role(node: str) -> str:
    return f"join-{node}"


def roles_of(identity: Identity) -> list[str]:
    return [ROOT] if identity.role == "core" else [member_role(identity.node)]


def member_grants(node: str) -> list[Grant]:
    """Reads all that is shared; writes what is its own, and the records that all share."""
    own = [keys.member(node), keys.signer(node), keys.certificate_request(node)]
    shared = [keys.peer_root(node), f"{keys.ROOT}/registry/", keys.all_rounds()]
    return [
        *_reads(),
        *(Grant("readwrite", key, prefix=False) for key in own),
        *(Grant("readwrite", key, prefix=True) for key in shared),
    ]


def invitation_grants(node: str) -> list[Grant]:
    """Reads all that is shared, so that names can be compared, and asks for a certificate."""
    return [*_reads(), Grant("readwrite", keys.certificate_request(node), prefix=False)]


def _reads() -> list[Grant]:
    # `health` is what a store reads to find out whether etcd answers.
    return [Grant("read", f"{keys.ROOT}/", prefix=True), Grant("read", "health", prefix=False)]
