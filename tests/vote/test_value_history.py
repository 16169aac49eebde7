"""The history of a value: which commits are listed, how values are found and spelt, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import mao_vote.value_history
from mao_git import Author, Clone, Content
from mao_shared.commit_messages import embed_record
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.dataset import ValueVersion
from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import HistoryQuery, open_history
from tests.support.git import git

from .repo import TICK, Files, new_repository, vote

Versions = Sequence[Files]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return new_repository(tmp_path / "data.git")


def write(
    clone: Clone, versions: Versions, message: Callable[[int], str] = str, at: str | None = None
) -> str:
    """Commit one version after the other, an hour apart; return the tip."""
    for number, files in enumerate(versions):
        contents = {
            path: Content.of(text if isinstance(text, bytes) else text.encode())
            for path, text in files.items()
        }
        tree = clone.write_tree(clone.tree(None), contents)
        author = Author("n", "n@example.org", TICK + timedelta(hours=number))
        at = clone.commit(tree, [at] if at else [], message(number), author)
    assert at is not None
    return at


def history(clone: Clone, tip: str, file: str, key: str, field: str, **more: Any) -> list[ValueVersion]:
    query = HistoryQuery(file, key, field, **more)
    return [row for batch in open_history(clone, tip, query) for row in batch]


def values(rows: list[ValueVersion]) -> list[str | None]:
    return [row.value for row in rows]


def test_history_lists_the_commits_that_changed_the_file(clone: Clone) -> None:
    table = "region,p95\nbasel,{}\neu,{}\n".format
    versions = [{"t.csv": table(1, "1.0")}, {"t.csv": table(1, "1.0"), "x": "x"}, {"t.csv": table(2, "1.0")}]
    versions.append({"t.csv": table(2, "1.00")})
    tip = write(clone, versions)
    rows = history(clone, tip, "t.csv", "eu", "p95")
    assert [(row.value, row.changed) for row in rows] == [("1.00", True), ("1.0", False), ("1.0", True)]
    assert [row.time for row in rows] == [TICK + timedelta(hours=hours) for hours in (3, 2, 0)]
    assert rows[0].commit == tip
    assert rows[0].key == {"region": "eu"}


@pytest.mark.parametrize(
    ("file", "content", "key", "field", "spelt"),
    [
        ("a.csv", "id;v\nx;1,50\ny;2\n", "x", "v", "1,50"),
        ("a.csv", 'id,v\n"x, y","a ""b"""\nz,2\n', "x, y", "v", 'a "b"'),
        ("a.csv", "id,v\nx,\ny,2\n", "x", "v", ""),
        ("a.tsv", "id\tv\nx\t1e5\ny\t2\n", "x", "v", "1e5"),
        ("d/e/a.jsonl", '{"id": "x", "v": 1.10}\n{"id": "y"}\n', "x", "v", "1.10"),
        ("a.jsonl", '{"id": "x", "v": null}\n{"id": "y"}\n', "x", "v", "null"),
        ("a.json", '[{"id": 7, "v": "a"}, {"id": 8, "v": "é"}]', "8", "v", '"é"'),
        ("a.json", '[{"id": "x", "o": {"p": {"q": [1.0]}}}]', "x", "/o/p/q", "[1.0]"),
        ("a.json", '{"images": {"total": 3.0}}', "/images/total", "value", "3.0"),
        ("a.json", '{"images": {"total": 3.0}}', "/images", "total", "3.0"),
        ("a.json", '{"images": {"total": 3.0}}', "images", "total", "3.0"),
        ("a.json", '{"images": {"total": 3.0}}', "", "/images/total", "3.0"),
        ("a.json", '{"l": [{"name": "x", "a/b": 1}]}', "/l/[name=x]", "a/b", "1"),
        ("a.json", '{"l": [5, {"value": 1}]}', "/l/1", "value", "1"),
        ("a.csv", "a,b,v\nx,1,3\nx,2,4\ny,2,4\n", "x,2", "v", "4"),
        ("a.csv", "a,b,v\nx,1,3\nx,2,4\ny,2,4\n", '["x", "2"]', "v", "4"),
        ("a.csv", "v,w\n1.5,2.5\n1.5,2.5\n", "2", "v", "1.5"),
    ],
)
def test_history_value_as_spelt(
    clone: Clone, file: str, content: str, key: str, field: str, spelt: str
) -> None:
    rows = history(clone, write(clone, [{file: content}]), file, key, field)
    assert [(row.state, row.value, row.changed) for row in rows] == [("value", spelt, True)]


def test_history_declared_key(clone: Clone) -> None:
    tip = write(clone, [{"t.csv": "id,host,day,v\n1,a,mo,1\n2,a,tu,2\n3,b,mo,3\n"}])
    assert values(history(clone, tip, "t.csv", "a,tu", "v", by=("host", "day"))) == ["2"]
    with pytest.raises(InvalidInput, match="2 of its records have this key") as refused:
        history(clone, tip, "t.csv", "a", "v", by=("host",))
    assert refused.value.code == "record-ambiguous"


def test_history_uses_the_key_that_the_newest_round_declared(clone: Clone) -> None:
    files = {"t.csv": "id,slot,v\n1,s1,5\n2,s2,6\n"}
    definition = VoteDefinition(files=[FileRule(key=["slot"], fold=["case"])])
    decided = vote(clone, {"a": files, "b": files}, definition=definition)
    clone.move_branch(GROUND_TRUTH, decided.commit, None)
    [row] = history(clone, decided.commit, "t.csv", "S2", "v")
    assert (row.value, row.key) == ("6", {"slot": "s2"})
    assert (row.round, row.tick, row.run) == (decided.evidence.round, TICK, None)


def test_history_infers_the_key_once(clone: Clone) -> None:
    """An older version in which the key's column repeats is looked up by the same column."""
    tip = write(clone, [{"t.csv": "name,v\nx,1\ny,2\ny,3\n"}, {"t.csv": "name,v\nx,1\ny,2\n"}])
    assert values(history(clone, tip, "t.csv", "x", "v")) == ["1", "1"]
    newest, oldest = history(clone, tip, "t.csv", "y", "v")
    assert (newest.value, oldest.state) == ("2", "unreadable")


def test_history_of_a_version_with_other_columns(clone: Clone) -> None:
    tip = write(clone, [{"t.csv": "id,v\nx,1\n"}, {"t.csv": "name,v\nx,2\n"}])
    rows = history(clone, tip, "t.csv", "x", "v")
    assert [(row.value, row.key) for row in rows] == [("2", {"name": "x"}), ("1", {"id": "x"})]


def test_history_tells_each_reason_why_there_is_no_value(clone: Clone) -> None:
    good = "id,v\nx,1\ny,2\n"
    versions: Versions = [
        {"t.csv": good},
        {"t.csv": "id,v\ny,2\n"},
        {"t.csv": "id,w\nx,1\ny,2\n"},
        {"t.csv": b"id,v\n\xff,1\n"},
        {"other": "x"},
        {"t.csv/inner": "x"},
        {"t.csv": good},
    ]
    rows = history(clone, write(clone, versions), "t.csv", "x", "v")
    assert [(row.state, row.changed) for row in rows] == [
        ("value", True),
        ("no-file", False),
        ("no-file", None),
        ("unreadable", None),
        ("no-field", True),
        ("no-record", True),
        ("value", True),
    ]
    reasons = [row.reason or "" for row in rows]
    words = ["", "folder", "removed", "not UTF-8", "no field 'v'", "no record 'x'", ""]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_history_follows_first_parents(clone: Clone) -> None:
    ours = write(clone, [{"t.csv": "id,v\nx,1\n"}])
    theirs = write(clone, [{"t.csv": "id,v\nx,2\n"}, {"t.csv": "id,v\nx,3\n"}], at=ours)
    author = Author("n", "n@example.org", TICK + timedelta(hours=9))
    merged = clone.commit(clone.tree(theirs), [ours, theirs], "Take it\n", author)
    assert values(history(clone, merged, "t.csv", "x", "v")) == ["3", "1"]


def test_history_names_run_and_tick(clone: Clone) -> None:
    def message(number: int) -> str:
        record = {"mao": {"scheduled_for": f"2026-01-31T1{number}:00:00Z"}}
        return f"{embed_record('x', record)}\nMAO-Run: run-{number}\nMAO-Step: probe\n"

    snapshot = write(clone, [{"t.csv": "id,v\nx,1\n"}, {"t.csv": "id,v\nx,2\n"}], message)
    first = clone.parent(snapshot)
    assert first is not None
    author = Author("n", "n@example.org", TICK)
    taken = clone.commit(clone.tree(snapshot), [first, snapshot], "Take it as ground truth\n", author)
    rows = history(clone, taken, "t.csv", "x", "v")
    assert [(row.run, row.step, row.tick) for row in rows] == [
        (f"run-{number}", "probe", datetime(2026, 1, 31, 10 + number, tzinfo=UTC)) for number in (1, 0)
    ]


@pytest.mark.parametrize(
    "message",
    [
        "MAO-Run: \x1b[2J\n",
        embed_record("x", {"mao": {"scheduled_for": "9999-01-01T00:00:00Z"}}) + "\nMAO-Run: r\n",
        embed_record("x", {"mao": {"scheduled_for": {"a": 1}}}) + "\nMAO-Run: r\n",
        "x\n\nMAO-Round: r\nMAO-Tick: never\n",
    ],
)
def test_history_messages_that_lie_about_the_tick(clone: Clone, message: str) -> None:
    tip = write(clone, [{"t.csv": "id,v\nx,1\n"}], lambda _: message)
    [row] = history(clone, tip, "t.csv", "x", "v")
    assert (row.value, row.tick) == ("1", None)


def test_history_of_a_period_and_of_the_newest(clone: Clone) -> None:
    tip = write(clone, [{"t.csv": f"id,v\nx,{number // 2}\n", "n": str(number)} for number in range(8)])
    rows = history(clone, tip, "t.csv", "x", "v")
    assert values(rows) == ["3", "2", "1", "0"]
    assert values(history(clone, tip, "t.csv", "x", "v", limit=2)) == ["3", "2"]
    begin, end = rows[2].time, rows[1].time
    within = history(clone, tip, "t.csv", "x", "v", since=begin, until=end)
    assert within == rows[1:3]
    later = tuple(rows[0].time + timedelta(hours=hours) for hours in (5, 6))
    assert history(clone, tip, "t.csv", "x", "v", since=later[0], until=later[1]) == []


def test_history_reads_each_content_once(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    tip = write(clone, [{"t.csv": f"id,v\nx,{number % 2}\n"} for number in range(10)])
    opened: list[str] = []
    original = Clone.open_blob

    def open_blob(self: Clone, commit: str, blob: str) -> Any:
        opened.append(blob)
        return original(self, commit, blob)

    monkeypatch.setattr(Clone, "open_blob", open_blob)
    assert values(history(clone, tip, "t.csv", "x", "v")) == ["1", "0"] * 5
    assert len(opened) == len(set(opened)) == 2


def test_history_is_read_as_the_caller_reads_on(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    tip = write(clone, [{"t.csv": f"id,v\nx,{number}\n"} for number in range(30)])
    monkeypatch.setattr(mao_vote.value_history, "BATCH_ROWS", 5)
    opened: list[str] = []
    original = Clone.open_blob

    def open_blob(self: Clone, commit: str, blob: str) -> Any:
        opened.append(blob)
        return original(self, commit, blob)

    monkeypatch.setattr(Clone, "open_blob", open_blob)
    batches = open_history(clone, tip, HistoryQuery("t.csv", "x", "v"))
    assert len(next(batches)) == 5
    assert len(opened) <= 7
    assert sum(map(len, batches)) == 25


def test_history_keeps_the_beginning_of_long_values(clone: Clone) -> None:
    long = "é" * 5000
    tip = write(clone, [{"t.csv": f"id,v\nx,{long}{end}\n"} for end in "aab"])
    newest, oldest = history(clone, tip, "t.csv", "x", "v")
    assert newest.value == oldest.value == "é" * 2000 + "…"
    assert newest.changed


def test_history_of_a_large_version_is_a_row_with_the_reason(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mao_vote.records.MAX_SHOWN_BYTES, mao_vote.records.RecordFormat.CSV, 1 << 20)
    large = "id,v\nx,1\n" + "y,2\n" * (1 << 19)
    tip = write(clone, [{"t.csv": "id,v\nx,1\n"}, {"t.csv": large}])
    newest, oldest = history(clone, tip, "t.csv", "x", "v")
    assert (newest.state, newest.reason) == ("unreadable", "it is larger than 1 MiB")
    assert oldest.value == "1"


def test_history_of_a_shallow_clone_says_where_it_ends(clone: Clone, tmp_path: Path) -> None:
    tip = write(clone, [{"t.csv": f"id,v\nx,{number}\n"} for number in range(4)])
    clone.move_branch("main", tip, None)
    git(tmp_path, "clone", "-q", "--bare", "--depth=2", f"file://{clone.path}", "shallow.git")
    shallow = Clone.discover(tmp_path / "shallow.git")
    newest, oldest = history(shallow, tip, "t.csv", "x", "v")
    assert (newest.value, newest.changed, newest.unknown) == ("3", True, None)
    assert (oldest.value, oldest.changed) == ("2", None)
    assert "shallow" in (oldest.unknown or "")


@pytest.mark.parametrize("lost", ["commit", "content"])
def test_history_with_a_truncated_object_ends_with_the_reason(clone: Clone, lost: str) -> None:
    tip = write(clone, [{"t.csv": f"id,v\nx,{number}\n"} for number in range(3)])
    parent = clone.parent(tip)
    assert parent is not None
    oid = parent if lost == "commit" else clone.blob_id(parent, "t.csv")
    loose = clone.path / "objects" / oid[:2] / oid[2:]
    loose.chmod(0o644)
    loose.write_bytes(loose.read_bytes()[:-9])
    rows = history(clone, tip, "t.csv", "x", "v")
    if lost == "commit":
        assert [row.value for row in rows] == ["2"]
        assert "cannot be read" in (rows[0].unknown or "")
    else:
        assert [row.state for row in rows] == ["value", "unreadable", "value"]
        assert [row.changed for row in rows] == [None, None, True]


def test_history_of_lfs_content_that_is_not_here(clone: Clone) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    versions: Versions = [{"t.csv": "id,v\nx,1\n"}, {"t.csv": pointer, ".mao/lfs": "t.csv\n"}]
    newest, oldest = history(clone, write(clone, versions), "t.csv", "x", "v")
    assert "Git LFS" in (newest.reason or "")
    assert oldest.value == "1"


TABLE = "region,ip,p95\neu-central,1.2.3.4,1\neu-west,1.2.3.5,2\n"
DOCUMENT = json.dumps({"images": {"total": 3}, "l": [1]})


@pytest.mark.parametrize(
    ("file", "key", "field", "error", "code", "words"),
    [
        ("note.txt", "x", "v", InvalidInput, "not-records", "git log"),
        ("none.csv", "x", "v", NotFound, "path-not-found", "Did you mean one.csv"),
        ("a\0b.csv", "x", "v", NotFound, "path-not-found", "Did you mean"),
        ("../t.csv", "x", "v", NotFound, "path-not-found", "t.csv"),
        ("t.csv", "eu-centrall", "p95", NotFound, "record-not-found", "Did you mean 'eu-central'"),
        ("t.csv", "1.2.3.4", "p95", NotFound, "record-not-found", "--by ip"),
        ("t.csv", "a,b", "p95", NotFound, "record-not-found", ""),
        ("t.csv", "eu-west", "p59", NotFound, "field-not-found", "Did you mean 'p95'"),
        ("t.csv", "eu-west", "/x/y", NotFound, "field-not-found", "region, ip, p95"),
        ("d.json", "/images", "totl", NotFound, "field-not-found", "'total'"),
        ("d.json", "/imagse/total", "value", NotFound, "record-not-found", "'images'"),
        ("d.json", "/l/7", "value", NotFound, "record-not-found", ""),
        ("bad.csv", "x", "v", InvalidInput, "not-records", "dataset cat"),
        ("bad.json", "x", "v", InvalidInput, "not-records", "dataset cat"),
    ],
)
def test_history_that_finds_nothing_says_why(
    clone: Clone, file: str, key: str, field: str, error: type[Exception], code: str, words: str
) -> None:
    files = {
        "t.csv": TABLE,
        "one.csv": "a\n1\n",
        "d.json": DOCUMENT,
        "bad.csv": "a,b\n1,2,3\n",
        "bad.json": "{",
    }
    tip = write(clone, [{**files, "note.txt": "x"}])
    with pytest.raises(error) as found:
        history(clone, tip, file, key, field)
    assert isinstance(found.value, InvalidInput | NotFound)
    assert found.value.code == code
    assert found.value.next
    assert words in found.value.next or words in found.value.detail
