"""What the members of a federation may read and write in its etcd. Core nodes have etcd's role `root`."""

from __future__ import annotations

from mao_shared import keys
from mao_shared.store import Grant


def member_grants(node: str) -> list[Grant]:
    """A member reads everything, says what it does itself, and changes shared records by their own rules."""
    return [
        Grant("read", f"{keys.ROOT}/", prefix=True),
        Grant("readwrite", keys.peer_root(node), prefix=True),
        Grant("readwrite", keys.member(node)),
        Grant("readwrite", keys.signer(node)),
        Grant("readwrite", keys.certificate_request(node)),
        Grant("readwrite", f"{keys.ROOT}/registry/", prefix=True),
        Grant("readwrite", keys.all_rounds(), prefix=True),
    ]


def invited_grants(node: str) -> list[Grant]:
    """An invitation looks for clashes of names and asks for a certificate, no more."""
    return [
        Grant("read", f"{keys.ROOT}/", prefix=True),
        Grant("readwrite", keys.certificate_request(node)),
    ]
