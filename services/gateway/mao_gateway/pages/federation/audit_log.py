"""*Audit log*: who changed what on this node, with filters, page by page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import HTMLResponse

from mao_gateway.audit import AuditFilter
from mao_gateway.pages.site import PageDep, page_router
from mao_shared.models.audit import AuditEntry

router = page_router()

HERE = "/ui/audit"
ON_PAGE = 50
PERIODS = {"1": "last day", "7": "last 7 days", "30": "last 30 days"}
Text = Annotated[str, Query(max_length=200)]
ACTORS = {
    "token": "token",
    "local-user": "user of this machine",
    "node-token": "the node's token",
    "unknown": "not known",
}


def outcome(entry: AuditEntry) -> tuple[str, str, str]:
    """Return the outcome of a call: icon, colour, words. Pure."""
    if entry.status == 499:
        return "stale", "off", "caller left"
    if entry.status in (401, 403):
        return "failed", "bad", f"refused, {entry.status}"
    return ("failed", "warn", f"failed, {entry.status}") if entry.status >= 400 else ("ok", "ok", "done")


def audit_command(typed: Mapping[str, str]) -> str:
    """Return the command that lists the same. Pure."""
    words = ["maoctl", "audit"]
    for name in ("actor", "action", "subject"):
        if value := typed[name].strip():
            words.append(f"--{name}={value}")
    words += {"failed": ["--failed"], "done": ["--succeeded"]}.get(typed["outcome"], [])
    words += [f"--since={typed['days']}d"] if typed["days"] else []
    return shlex.join(words)


@router.get(HERE)
async def show_audit(
    page: PageDep,
    actor: Text = "",
    action: Text = "",
    subject: Text = "",
    outcome_is: Annotated[Literal["", "failed", "done"], Query(alias="outcome")] = "",
    days: Annotated[Literal["", "1", "7", "30"], Query()] = "",
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> HTMLResponse:
    wanted = AuditFilter(
        actor=actor.strip() or None,
        action=action.strip() or None,
        subject=subject.strip() or None,
        failed={"failed": True, "done": False}.get(outcome_is),
        since=page.clock.now - timedelta(days=int(days)) if days else None,
    )
    found = await page.gateway.audit.page(wanted, ON_PAGE, cursor or None)
    typed = {"actor": actor, "action": action, "subject": subject, "outcome": outcome_is, "days": days}
    return await page.render(
        "audit.html",
        section="Federation",
        title="Audit log",
        entries=[(entry, ACTORS[entry.actor_kind], outcome(entry)) for entry in found.items],
        unreadable=len(found.unreadable),
        cursor=found.cursor,
        first=not cursor,
        typed=typed,
        command=audit_command(typed),
        periods=PERIODS,
        query=[(name, value) for name, value in typed.items() if value],
    )
