"""Entries of the audit log: who changed what through the gateway."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import NodeName, Record, Timestamp

ActorKind = Literal["token", "local-user", "node-token", "unknown"]


class AuditEntry(Record):
    """One call that may have changed something; stored under `keys.audit_entry`.

    `actor` did `action`, as in GitHub's audit log, to `subject`, as Kubernetes' `objectRef`. Contains neither
    bodies nor query strings.

    Attributes:
        id: sorts by time; `at`: when the call arrived.
        actor: name of the token, or of the user of this machine; `actor_kind` tells which.
        address: from which address.
        action: operation id as in the API pages; None if no service answered.
        subject: name or id of what was changed, from the path, otherwise from the body; None without one.
        status: of the response; 499 if the caller left before it.
    """

    id: str
    at: Timestamp
    node: NodeName
    actor: str
    actor_kind: ActorKind
    address: str | None = None
    user_agent: str | None = None
    action: str | None = Field(default=None, examples=["pipelines.approve"])
    subject: str | None = None
    method: str
    path: str
    status: int
    request_id: str
