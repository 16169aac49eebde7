"""Pure: etcd users and roles of a federation (what each role may do: rights.py).

A user is the common name of a certificate. `<node>@<n>`: the node itself; n grows with every invitation, so
that an old certificate never becomes valid again. `<node>@<n>-join`: the invitation, which may only ask for
the node's certificate. No node's name holds an `@`.
"""

from __future__ import annotations

from mao_shared.models import Identity

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
