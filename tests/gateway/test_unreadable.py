"""A run that cannot be read neither ends nor spoils the stream of all runs."""

from __future__ import annotations

import json

import pytest

from mao_gateway.events import to_events
from mao_shared import keys
from mao_shared.store import Entry, Event


@pytest.mark.parametrize("value", [b"\xff", b"", b"{", b"[]", b"null", b"[" * 50_000])
def test_events_unreadable_run(value: bytes) -> None:
    names = {"a": b'{"id":"a"}', "bad": value, "z": b'{"id":"z"}'}
    batch = [
        Event(keys.run("n", name), at, Entry(keys.run("n", name), content, at))
        for at, (name, content) in enumerate(names.items(), 1)
    ]
    events = to_events(batch)
    assert [each.event for each in events] == ["run", "run-unreadable", "run"]
    told = json.loads(events[1].raw_data or "")
    assert told["id"] == "bad"
    assert told["unreadable"]
