"""Pending values as files: complete ones are read in order, other files are set aside."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.external.inbox import Inbox, InboxEntry, make_entry
from mao_shared.errors import InvalidInput, Unavailable

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = "temperature"


def entry(number: int, key: str = KEY, at: datetime = NOON) -> InboxEntry:
    return make_entry(key, {"n": number}, at + timedelta(microseconds=number), f"{number:08x}", 1000)


def test_inbox_entry_is_a_line_of_json() -> None:
    made = make_entry(KEY, {"name": "Zürich", "text": "a\nb"}, NOON, "0000000a", 1000)
    assert b"\n" not in made.line
    assert json.loads(made.line) == {
        "id": "20260131T120000.000000Z-0000000a",
        "key": KEY,
        "received_at": "2026-01-31T12:00:00Z",
        "value": {"name": "Zürich", "text": "a\nb"},
    }


@pytest.mark.parametrize(
    ("value", "code"),
    [(float("nan"), "value-invalid"), ("\ud800", "value-invalid"), ("x" * 2000, "value-too-large")],
)
def test_inbox_unstorable_value_is_refused(value: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        make_entry(KEY, value, NOON, "0", 1000)
    assert raised.value.code == code


def test_inbox_keeps_order_over_restarts_and_has_a_limit(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox", limit=3)
    for number in (2, 1, 1, 3):  # the same one twice
        inbox.put("data", entry(number))
    with pytest.raises(Unavailable, match="3 values wait"):
        inbox.put("data", entry(4))
    (tmp_path / "inbox" / "data" / ".new-half").write_text("{")
    again = Inbox(tmp_path / "inbox", limit=3)
    assert again.waiting() == {"data": 3}
    assert again.take("data", 10, 1 << 20) == [entry(1), entry(2), entry(3)]
    assert again.take("data", 10, 1) == [entry(1)]
    assert again.oldest("data") == entry(1).received_at
    again.remove("data", [entry(1), entry(2), entry(3)])
    assert (again.waiting(), again.oldest("data")) == ({}, None)


# files that are no entries


def torn(folder: Path) -> dict[str, Path]:
    """Create one torn file of each kind, older than any entry of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        kind: folder / f"20200101T0000{number:02}.000000Z-aaaaaaaa.json" for number, kind in enumerate(KINDS)
    }
    whole = json.loads(entry(1).line) | {"id": made["key"].stem}
    contents: dict[str, bytes] = {
        "empty": b"",
        "cut short": entry(1).line[:-5],
        "zeros": bytes(512),
        "garbage": os.urandom(64) + b"\xff",
        "not UTF-8": entry(1).line.replace(b"n", b"\xe4"),
        "another id": entry(1).line,
        "key": json.dumps(whole | {"key": "../../x"}).encode(),
        "fields": json.dumps({"id": made["fields"].stem, "value": 1}).encode(),
        "time": json.dumps(whole | {"id": made["time"].stem, "received_at": "noon"}).encode(),
        "no object": b"[1]",
        "number": json.dumps(whole | {"value": 0}).encode().replace(b": 0", b": " + b"9" * 5000),
        "deep": b"[" * 100_000,
    }
    for kind, content in contents.items():
        made[kind].write_bytes(content)
    made["folder"].mkdir()
    (made["folder"] / "inside").write_text("x")
    made["link"].symlink_to("/etc/hostname")
    made["link to nothing"].symlink_to("nowhere")
    os.mkfifo(made["pipe"])
    with made["huge"].open("wb") as file:
        file.truncate(10 << 30)
    return made


KINDS = (
    "empty", "cut short", "zeros", "garbage", "not UTF-8", "another id", "key", "fields", "time", "no object",
    "number", "deep", "folder", "link", "link to nothing", "pipe", "huge",
)  # fmt: skip


def test_inbox_sets_aside_malformed_entries(tmp_path: Path) -> None:
    made = torn(tmp_path / "inbox" / "data")
    inbox = Inbox(tmp_path / "inbox", limit=100)
    assert inbox.oldest("data") is None  # a query moves nothing
    inbox.put("data", entry(2))
    inbox.put("data", entry(3))
    assert inbox.oldest("data") == entry(2).received_at
    assert inbox.take("data", 10, 1 << 20) == [entry(2), entry(3)]
    assert inbox.waiting() == {"data": 2}
    aside = inbox.aside("data")
    assert [path.name for path in aside] == sorted(path.name for path in made.values())
    assert all(reason.startswith("it") for reason in aside.values())
    assert (tmp_path / "inbox" / "data" / ".aside" / made["folder"].name / "inside").read_text() == "x"
    assert inbox.take("data", 1, 1 << 20) == [entry(2)]


def test_inbox_sets_same_name_aside_twice_and_takes_returned_file(tmp_path: Path) -> None:
    folder = tmp_path / "inbox" / "data"
    inbox = Inbox(tmp_path / "inbox", limit=100)
    inbox.put("data", entry(1))
    line = (folder / f"{entry(1).id}.json").read_bytes()
    for _ in range(2):
        (folder / f"{entry(1).id}.json").write_bytes(line[:10])
        assert inbox.take("data", 10, 1 << 20) == []
    second, first = inbox.aside("data")
    assert (first.stem, second.stem) == (entry(1).id, f"{entry(1).id}.2")
    first.write_bytes(line)
    first.rename(folder / first.name)
    second.unlink()
    assert (inbox.datasets_to_process(), inbox.aside("data")) == (["data"], {})
    assert inbox.take("data", 10, 1 << 20) == [entry(1)]


def test_inbox_skips_entries_it_cannot_set_aside(tmp_path: Path) -> None:
    made = torn(tmp_path / "inbox" / "data")
    (tmp_path / "inbox" / "data" / ".aside").write_text("a file in the way")
    inbox = Inbox(tmp_path / "inbox", limit=100)
    inbox.put("data", entry(1))
    assert inbox.take("data", 10, 1 << 20) == [entry(1)]
    assert all(os.path.lexists(path) for path in made.values())
