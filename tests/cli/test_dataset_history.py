"""`maoctl dataset history`: of a node, streamed, and of a repository without a node."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.git import git

from .conftest import Maoctl, Terminal
from .gateways import RememberingGateway

PATH = "/datasets/data/history"
LINE = ("dataset", "history", "data", "t.csv", "x", "v")


def version(value: str | None, hour: int, **fields: Any) -> dict[str, Any]:
    state = "unreadable" if value is None else "value"
    return {
        "time": f"2026-01-31T{hour:02}:00:00Z",
        "commit": f"{hour:040x}",
        "state": state,
        **({} if value is None else {"value": value}),
        **fields,
    }


def answer(gateway: RememberingGateway, *versions: dict[str, Any]) -> None:
    lines = [json.dumps(found, ensure_ascii=False) for found in versions]
    gateway.answer("GET", PATH, "\n".join(["", *lines, ""]))


def test_history_table(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    answer(
        gateway,
        version("1.10", 11, changed=True, run="20260131T110000Z-p-0a1b2c3d"),
        version(None, 10, reason="it is not UTF-8 at byte 5"),
    )
    done = maoctl(*LINE, "--branch", "node-2", "--by", "host", "--by", "day", "-n", "9", "--since", "3d")
    assert done.code == 0, done.err
    heading, first, second = done.out.splitlines()
    assert heading.split() == ["TIME", "COMMIT", "VALUE", "CHANGED", "RUN", "REASON"]
    assert first.split()[2:] == ["1.10", "yes", "20260131T110000Z-p-0a1b2c3d"]
    assert second.endswith("it is not UTF-8 at byte 5")
    query = gateway.calls[-1].query
    assert (query["file"], query["key"], query["field"], query["branch"]) == ("t.csv", "x", "v", "node-2")
    assert (query["by"], query["limit"], query["since"]) == ("day", "9", "2026-01-28T12:00:00Z")


def test_history_csv_and_json(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    answer(
        gateway,
        version('a "b",\nc\u2028', 11, changed=True, key={"id": "x"}),
        version("2", 10, changed=False),
    )
    done = maoctl(*LINE, "-o", "csv")
    first, second = csv.DictReader(io.StringIO(done.out, newline=""))
    assert (first["value"], first["changed"], first["key"]) == ('a "b",\nc\u2028', "yes", "id=x")
    assert (second["time"], second["value"], second["changed"]) == ("2026-01-31T10:00:00Z", "2", "no")
    sorted_rows = list(csv.DictReader(io.StringIO(maoctl(*LINE, "-o", "csv", "--sort-by", "value").out)))
    assert sorted_rows[0]["value"] == "2"
    rows = json.loads(maoctl(*LINE, "-o", "json").out)
    assert [(row["kind"], row["value"]) for row in rows] == [("version", 'a "b",\nc\u2028'), ("version", "2")]


def test_history_csv_on_a_terminal_has_no_escapes(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal
) -> None:
    answer(gateway, version("\x1b[2J\u202e", 11))
    assert maoctl(*LINE, "-o", "csv").code == 0
    assert "\\x1b[2J\\u202e" in terminal.shown
    assert "\x1b" not in terminal.shown


def test_history_without_versions(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    answer(gateway)
    done = maoctl(*LINE, "-o", "csv")
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert "No version found" in done.err
    assert maoctl(*LINE).err == "No version found.\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LINE[:-1], "DATASET FILE KEY FIELD"),
        ((*LINE, "more"), "DATASET FILE KEY FIELD"),
        ((*LINE, "--repo", "."), "FILE KEY FIELD"),
    ],
)
def test_history_arguments(maoctl: Maoctl, line: tuple[str, ...], words: str) -> None:
    done = maoctl(*line)
    assert done.code == 2
    assert words in done.err


def test_history_says_what_is_not_there(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.problem("GET", PATH, 404, "record-not-found", next="Did you mean 'eu-central'?")
    done = maoctl(*LINE)
    assert (done.code, done.out) == (3, "")
    assert "Did you mean 'eu-central'?" in done.err


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two versions of a table."""
    git(tmp_path, "init", "-q", "-b", "main", "work")
    work = tmp_path / "work"
    for value in ("1.0", "1.10"):
        (work / "t.csv").write_text(f"id,v\nx,{value}\ny,5\n")
        git(work, "add", "-A")
        git(work, "commit", "-qm", f"{value}\n\nMAO-Run: r-{value}\nMAO-Step: s")
    return work


def test_history_of_a_repository_needs_no_node(maoctl: Maoctl, repository: Path, tmp_path: Path) -> None:
    maoctl.url = "http://127.0.0.1:9"
    for path in (repository, repository / ".git"):
        done = maoctl("dataset", "history", "--repo", str(path), "t.csv", "x", "v", "-o", "csv")
        assert done.code == 0, done.err
        rows = list(csv.DictReader(io.StringIO(done.out)))
        assert [(row["value"], row["run"], row["changed"]) for row in rows] == [
            ("1.10", "r-1.10", "yes"),
            ("1.0", "r-1.0", "yes"),
        ]
    one = maoctl("dataset", "history", "--repo", str(repository), "t.csv", "x", "v", "--branch", "main~1")
    assert len(one.out.splitlines()) == 2
    missed = maoctl("dataset", "history", "--repo", str(repository), "t.csv", "z", "v")
    assert missed.code == 3
    assert "the key is id (inferred)" in missed.err
    assert maoctl("dataset", "history", "--repo", str(tmp_path / "none"), "t.csv", "x", "v").code == 3
