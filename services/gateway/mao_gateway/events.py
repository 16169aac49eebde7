"""`GET /events`: changes of the node's runs as server-sent events, from the store's watch.

Events: `begin` (the stream's first revision), `run` (the document), `run-removed` (`{"id"}`),
`run-unreadable`, and `gone` if the changes since Last-Event-ID were compacted, so that the client has to list
the runs again. The id of an event is the store's revision; only the last event of a revision has one, so that
resuming skips none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from fastapi.sse import ServerSentEvent

from mao_shared.errors import Compacted, InvalidInput, Unavailable
from mao_shared.keys import last_part, mirrored_run_id, past_runs_prefix, runs_prefix, runs_root
from mao_shared.store import Batch, Event, Store

RECONNECT_MILLISECONDS = 2000  # after which a browser reconnects
RELIST_STEP = "List the runs again with GET /runs; the stream continues from here."


def parse_last_event_id(sent: str | None) -> int | None:
    """Parse the revision in Last-Event-ID, if any. Raises InvalidInput (`last-event-id-invalid`)."""
    if not sent:
        return None
    if not sent.isascii() or not sent.isdigit() or len(sent) > 18:
        raise InvalidInput(
            f"invalid Last-Event-ID {sent!r}: not an id of this stream.",
            code="last-event-id-invalid",
            next="Send the id of the last event that was read, or omit the header.",
        )
    return int(sent)


async def revision_now(store: Store, node: str) -> int:
    """Return the store's current revision, where a new stream starts. Raises StoreUnavailable."""
    return (await store.list(runs_prefix(node), limit=1)).revision


async def run_events(store: Store, node: str, after: int) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the changes with a revision above `after`, until the store does not answer."""
    yield ServerSentEvent(
        event="begin", id=str(after), raw_data=json.dumps({"revision": after}), retry=RECONNECT_MILLISECONDS
    )
    while True:
        try:
            async with aclosing(store.watch(runs_root(node), after=after)) as batches:
                async for batch in batches:
                    after = batch[-1].revision
                    for event in to_events(run_changes(batch, node)):
                        yield event
        except Compacted:
            after = await revision_now(store, node)
            yield ServerSentEvent(event="gone", id=str(after), raw_data=json.dumps({"next": RELIST_STEP}))
        except Unavailable:
            return  # the browser reconnects by itself


def run_changes(batch: Batch, node: str) -> Batch:
    """Return the changes of runs in a batch. Pure.

    Moving a run into the history is no change. Removing it from the history is reported under its active key.
    """
    live, past = runs_prefix(node), past_runs_prefix(node)

    def run_of(key: str) -> str:
        return mirrored_run_id(key.removeprefix(past)) if key.startswith(past) else key.removeprefix(live)

    written = {(event.revision, run_of(event.key)) for event in batch if event.entry is not None}
    changes: Batch = []
    for event in batch:
        if event.key.startswith(live) and event.entry is not None:
            changes.append(event)
        elif event.key.startswith((live, past)) and (event.revision, run_of(event.key)) not in written:
            changes.append(Event(live + run_of(event.key), event.revision, None))
    return changes


def to_events(batch: Batch) -> list[ServerSentEvent]:
    """Convert a batch of changes to server-sent events. Pure."""
    last = {event.revision: event for event in batch}
    sent = []
    for event in batch:
        run_id = {"id": last_part(event.key)}
        kind, data = "run-removed", json.dumps(run_id)
        if event.entry is not None:
            kind, data = "run-unreadable", json.dumps({**run_id, "unreadable": "it is not a JSON object"})
            with suppress(ValueError, RecursionError):
                document = event.entry.value.decode()
                if isinstance(json.loads(document), dict):
                    kind, data = "run", document
        revision = str(event.revision) if last[event.revision] is event else None
        sent.append(ServerSentEvent(event=kind, id=revision, raw_data=data))
    return sent
