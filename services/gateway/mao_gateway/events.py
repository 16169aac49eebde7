"""`GET /events`: changes of the node's runs as server-sent events, from the store's watch.

Events: `begin` (where the stream begins), `run` (the document), `run-removed` (`{"id"}`), and `gone`:
what lies between Last-Event-ID and now is lost to compaction, list the runs again. The id of an event is
the store's revision; it is sent with the last event of a revision, so that resuming skips none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.sse import ServerSentEvent

from mao_shared.errors import Compacted, InvalidInput, Unavailable
from mao_shared.keys import last_part, past_runs_prefix, run_id_of, runs_prefix, runs_root
from mao_shared.store import Batch, Event, Store

RETRY = 2000  # milliseconds until a browser connects again
RELIST = "List the runs again with GET /runs; the stream goes on from here."


def parse_last_event_id(sent: str | None) -> int | None:
    """The revision in Last-Event-ID; raises InvalidInput (`last-event-id-invalid`)."""
    if not sent:
        return None
    if not sent.isascii() or not sent.isdigit() or len(sent) > 18:
        raise InvalidInput(
            f"Last-Event-ID is {sent!r}, which is no id of this stream.",
            code="last-event-id-invalid",
            next="Send the id of the last event that was read, or leave the header out.",
        )
    return int(sent)


async def revision_now(store: Store, node: str) -> int:
    """Where a stream begins that need not resume; raises StoreUnavailable."""
    return (await store.list(runs_prefix(node), limit=1)).revision


async def run_events(store: Store, node: str, after: int) -> AsyncGenerator[ServerSentEvent, None]:
    """Changes with a revision above `after`, for ever; ends when the store goes away."""
    yield ServerSentEvent(event="begin", id=str(after), raw_data=json.dumps({"revision": after}), retry=RETRY)
    while True:
        try:
            async with aclosing(store.watch(runs_root(node), after=after)) as batches:
                async for batch in batches:
                    after = batch[-1].revision
                    for event in to_events(of_runs(batch, node)):
                        yield event
        except Compacted:
            after = await revision_now(store, node)
            yield ServerSentEvent(event="gone", id=str(after), raw_data=json.dumps({"next": RELIST}))
        except Unavailable:
            return  # the browser connects again by itself


def of_runs(batch: Batch, node: str) -> Batch:
    """What a batch says of the runs themselves, pure: one that moves into the history is not removed.

    One that leaves the history otherwise is, under the key that it had.
    """
    live, past = runs_prefix(node), past_runs_prefix(node)
    written = {(event.revision, _run_of(event.key, node)) for event in batch if event.entry is not None}
    found: Batch = []
    for event in batch:
        name = _run_of(event.key, node)
        if event.key.startswith(live) and event.entry is not None:
            found.append(event)
        elif event.key.startswith((live, past)) and (event.revision, name) not in written:
            found.append(Event(live + name, event.revision, None))
    return found


def _run_of(key: str, node: str) -> str:
    past = past_runs_prefix(node)
    if key.startswith(past):
        return run_id_of(key.removeprefix(past))
    return key.removeprefix(runs_prefix(node))


def to_events(batch: Batch) -> list[ServerSentEvent]:
    """A batch of the store as events."""
    following = [event.revision for event in batch[1:]] + [0] * bool(batch)
    return [_to_event(event, event.revision != after) for event, after in zip(batch, following, strict=True)]


def _to_event(event: Event, ends_revision: bool) -> ServerSentEvent:
    revision = str(event.revision) if ends_revision else None
    if event.entry is None:
        gone = json.dumps({"id": last_part(event.key)})
        return ServerSentEvent(event="run-removed", id=revision, raw_data=gone)
    try:
        document = event.entry.value.decode()
        readable = isinstance(json.loads(document), dict)
    except (ValueError, RecursionError):
        document, readable = "", False
    if not readable:  # one such record must not end the stream of all others
        told = json.dumps({"id": last_part(event.key), "unreadable": "it is no JSON object"})
        return ServerSentEvent(event="run-unreadable", id=revision, raw_data=told)
    return ServerSentEvent(event="run", id=revision, raw_data=document)
