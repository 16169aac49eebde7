"""Pure: what a core node does about one node of the federation, by what it reads of it."""

from __future__ import annotations

import hashlib
from typing import Literal

from mao_shared.models import CertificateRequest, Identity

Action = Literal["sign", "finish", "strike", "unseat", "empower"]
"""
sign: answer its certificate request
finish: it has come with its own certificate, so that its invitation has done its work
strike: it leaves, or was removed and something of it is left
unseat: it is to be a client, and is a member of etcd still
empower: it is to be a member of etcd, and is none yet
"""


def digest(request: str) -> str:
    """How an identity names the request that its certificate answers."""
    return hashlib.sha256(request.encode()).hexdigest()


def decide(
    identity: Identity | None, request: CertificateRequest | None, *, present: bool, listed: bool
) -> Action | None:
    """None: nothing is to be done. `present`: it holds its presence; `listed`: it is a member of etcd."""
    if identity is None:
        return None
    if identity.state == "removed":
        return "strike" if request is not None or present or listed else None
    if request is not None and request.leaving:
        return "strike"
    if request is not None and digest(request.request) != identity.request:
        return "sign"
    if identity.state == "invited":
        return "finish" if identity.certificate is not None and present else None
    if listed != (identity.role == "core"):
        return "unseat" if listed else "empower"
    return None
