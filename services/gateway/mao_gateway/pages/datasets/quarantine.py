"""Quarantined snapshots: what a dataset's panel shows of them, and accepting or discarding one by a form."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import Path
from starlette.responses import RedirectResponse

from mao_gateway.audit_calls import ACTOR_KEY
from mao_gateway.pages.forms import Message, back_to, read_form
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import PageDep, messages, page_router
from mao_shared.errors import MaoError
from mao_shared.models.check import QuarantinedSnapshot
from mao_shared.models.common import STORED
from mao_shared.models.dataset import DatasetDiff, FileDifference

router = page_router()
MAX_WAITING = 10  # snapshots whose files are read
MAX_DECIDED = 10
MAX_FILES = 20  # of a snapshot


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A quarantined snapshot that waits. `files`: the first that it changes; `more`: there are others."""

    snapshot: QuarantinedSnapshot
    files: Sequence[FileDifference] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class QuarantinePanel:
    """What waits for a decision, newest first, and the newest decisions. `count`: all that wait."""

    count: int = 0
    waiting: Sequence[HeldSnapshot] = ()
    decided: Sequence[QuarantinedSnapshot] = field(default_factory=list)


async def read_quarantine(api: NodeApi, name: str, count: int) -> QuarantinePanel:
    """Return a dataset's quarantined snapshots. `count`: how many of them wait, as its status says."""
    path = path_of("datasets", name, "quarantine")
    newest, waiting = await asyncio.gather(
        api.optional(api.listing(path, QuarantinedSnapshot, limit=MAX_WAITING + MAX_DECIDED)),
        api.optional(api.listing(path, QuarantinedSnapshot, state="waiting", limit=MAX_WAITING)),
    )
    held = await asyncio.gather(*(read_held(api, each) for each in waiting.items)) if waiting else []
    decided = [each for each in newest.items if each.state != "waiting"] if newest else []
    return QuarantinePanel(max(count, len(held)), held, decided[:MAX_DECIDED])


async def read_held(api: NodeApi, snapshot: QuarantinedSnapshot) -> HeldSnapshot:
    """Return a snapshot with the first of the files that it changes."""
    if snapshot.base is None:
        return HeldSnapshot(snapshot)
    query = {"from": snapshot.base, "to": snapshot.commit, "limit": MAX_FILES}
    path = path_of("datasets", snapshot.dataset, "diff")
    diff = await api.optional(api.get(path, DatasetDiff, **query))
    return HeldSnapshot(snapshot) if diff is None else HeldSnapshot(snapshot, diff.files, bool(diff.cursor))


def form_name(verb: str, commit: str) -> str:
    """Return the name of a decision's form, by which a page shows again what was typed."""
    return f"{verb} {commit}"


def decided_message(found: QuarantinedSnapshot) -> Message:
    """Return what a decision came to."""
    who = f"By {found.by}: {found.note}" if found.by and found.note else found.note or ""
    if found.state == "accepted":
        published = (found.accepted_as or "")[:10]
        text = f"Accepted: the snapshot {found.commit[:10]} was published as {published}."
    else:
        text = f"Discarded: the snapshot {found.commit[:10]} is not published."
    return Message(True, text + ("" if found.pushed else " This is not pushed yet."), who or None)


@router.post("/ui/datasets/{name}/quarantine/{commit}/{verb}")
async def decide(
    page: PageDep,
    name: Annotated[str, Path(max_length=63)],
    commit: Annotated[str, Path(pattern=r"^[0-9a-f]{7,64}$")],
    verb: Literal["accept", "discard"],
) -> RedirectResponse:
    fields = await read_form(page.request)
    kind, actor = page.request.scope.get(ACTOR_KEY) or ("", "")
    by = fields.get("by") or (actor if kind == "token" else "")
    then = fields.get("then", "")
    here = then if then.startswith("/ui/") else path_of("ui", "datasets", name) + "#quarantine"
    path = path_of("datasets", name, "quarantine", commit, verb)
    body = {"by": by[:200], "note": fields.get("note", "")}
    try:
        answer = await page.api.send("POST", path, body)
    except MaoError as error:
        failed = Message(False, error.detail, error.next, form_name(verb, commit), fields)
        return back_to(here, messages.keep(failed))
    found = QuarantinedSnapshot.model_validate(answer, context=STORED)
    return back_to(here, messages.keep(decided_message(found)))
