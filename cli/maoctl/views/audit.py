"""The table of the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maoctl.output import Column, TableView
from maoctl.text import relative

if TYPE_CHECKING:
    from mao_shared.models.audit import AuditEntry

AUDIT_ENTRY: TableView[AuditEntry] = TableView(
    "audit",
    [
        Column(
            "AGE", lambda entry, now: relative(entry.at, now), keep_whole=True, sort=lambda entry: entry.at
        ),
        Column("TIME", lambda entry, _: entry.at, wide=True),
        Column("ACTOR", lambda entry, _: entry.actor),
        # A call that no service answered is known by its path alone.
        Column("ACTION", lambda entry, _: entry.action or f"{entry.method} {entry.path}"),
        Column("SUBJECT", lambda entry, _: entry.subject, keep_whole=True),
        Column("STATUS", lambda entry, _: entry.status),
        Column("KIND", lambda entry, _: entry.actor_kind, wide=True),
        Column("FROM", lambda entry, _: entry.address, wide=True),
        Column("CLIENT", lambda entry, _: entry.user_agent, wide=True),
        Column("REQUEST", lambda entry, _: entry.request_id, wide=True, keep_whole=True),
        Column("ID", lambda entry, _: entry.id, wide=True, keep_whole=True),
    ],
    lambda entry: entry.id,
    lambda entry: entry.at,
)
