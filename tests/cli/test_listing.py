"""Lists: order, period, changes with `--watch`; the newest run's log; `maoctl top`."""

from __future__ import annotations

import json

import pytest
import yaml

from . import documents
from .conftest import Maoctl, Terminal
from .documents import ago
from .gateways import RememberingGateway, Stream, sse

FAST, SLOW, OLD = (f"20260131T115{n}00Z-daily-{n}a1b2c3d" for n in (9, 5, 1))


@pytest.fixture
def runs(gateway: RememberingGateway) -> RememberingGateway:
    gateway.keep(
        "/runs",
        documents.run(FAST, started_at=ago(20), finished_at=ago(10), created_at=ago(60)),
        documents.run(SLOW, "failed", started_at=ago(300), finished_at=ago(10), created_at=ago(300)),
        documents.run(OLD, "missed", started_at=None, finished_at=None, created_at=ago(5400), steps=[]),
        key="id",
    )
    return gateway


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("duration", [FAST, SLOW, OLD]),
        ("-duration", [SLOW, FAST, OLD]),  # without a value: last in both directions
        ("age", [OLD, SLOW, FAST]),
        ("created_at", [OLD, SLOW, FAST]),
        ("-created-at", None),
        ("PHASE", [SLOW, OLD, FAST]),
        ("phase", [SLOW, OLD, FAST]),
    ],
)
def test_sort_by_column_or_field(
    maoctl: Maoctl, runs: RememberingGateway, sort: str, order: list[str] | None
) -> None:
    sorted_ = maoctl("run", "list", f"--sort-by={sort}", "-o", "name")

    assert sorted_.out.split() == [f"run/{run}" for run in order or []]
    assert sorted_.code == (0 if order else 2)


def test_sort_by_a_nested_field_and_suggestions(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    tools = [documents.tool(name, limits={"memory": size}) for name, size in (("a", "2g"), ("b", "1g"))]
    gateway.keep("/registry/tools", *tools)

    assert maoctl("tool", "get", "--sort-by", "limits.memory", "-o", "name").out.split() == [
        "tool/b",
        "tool/a",
    ]
    missed = maoctl("tool", "get", "--sort-by", "autor")
    assert (missed.code, missed.out) == (2, "")
    assert "Did you mean author" in missed.err


def test_period_of_runs_is_asked_of_the_node(maoctl: Maoctl, runs: RememberingGateway) -> None:
    assert maoctl("run", "list", "--since", "1h", "--until", "2m", "-o", "name").out == f"run/{SLOW}\n"
    [call] = runs.called("GET", "/runs")
    assert (call.query["since"], call.query["until"]) == ("2026-01-31T11:00:00Z", "2026-01-31T11:58:00Z")


def test_alarm_of_several_lines_is_one_row(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    detail = "The tool exited with code 3. Its last output:\nno sensor answers\ngiving up"
    alarm = {"id": "a", "kind": "run-failed", "node": "node-1", "detail": detail, "raised_at": ago(60)}
    gateway.keep("/alarms", alarm, key="id")

    shown = maoctl("alarm", "get").out

    assert "Its last output: no sensor answers | giving up" in shown
    assert "\\n" not in shown


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_period_of_alarms(maoctl: Maoctl, gateway: RememberingGateway, option: str) -> None:
    alarm = {"kind": "spike", "node": "node-1", "detail": "d"}
    old, new = ({**alarm, "id": name, "raised_at": ago(age)} for name, age in (("old", 7200), ("new", 60)))
    gateway.keep("/alarms", new, old, key="id")

    chosen = "new" if option == "--since" else "old"
    assert maoctl("alarm", "get", option, "1h", "-o", "name").out == f"alarm/{chosen}\n"


def test_period_of_rounds_reaches_beyond_the_limit(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    counts = {
        "commit": "c0ffee" * 6 + "abcd",
        "nodes": 3,
        "voters": 3,
        "files": 1,
        "cells": 2,
        "conflicts": 0,
    }
    rounds = [{"round": f"r{n}", "tick": ago(3600 * n), **counts} for n in range(30)]
    gateway.answer("GET", "/datasets/data/rounds", {"items": rounds, "cursor": None})

    listed = maoctl("vote", "list", "data", "--until", "24h", "-n", "3", "-o", "name")

    assert listed.out.split() == ["round/r24", "round/r25", "round/r26"]


@pytest.mark.parametrize(("since", "shown"), [("1h", 0), ("3h", 1)])
def test_period_of_series_is_that_of_their_newest_point(
    maoctl: Maoctl, gateway: RememberingGateway, since: str, shown: int
) -> None:
    point = {"time": ago(7200), "value": 1.5, "run": OLD}
    series = {"pipeline": "daily", "step": "crawl", "metric": "rows", "points": [point]}
    gateway.answer("GET", "/series", {"items": [series]})
    assert len(maoctl("series", "get", "--since", since, "-o", "name").out.split()) == shown


def test_period_of_invalid_times(maoctl: Maoctl) -> None:
    assert "use a time with a zone" in maoctl("run", "list", "--since", "soon").err
    assert "--since is later than --until" in maoctl("run", "list", "--since", "1h", "--until", "2h").err


@pytest.mark.parametrize("how", ["table", "json", "name", "yaml"])
def test_watch_prints_what_changed(maoctl: Maoctl, gateway: RememberingGateway, how: str) -> None:
    running, ended = documents.run(FAST, "running"), documents.run(FAST)
    other = documents.run(SLOW, "queued", steps=[])
    for items in ([running, other], [running, other], [ended, other], [ended]):
        gateway.answer("GET", "/runs", {"items": items, "cursor": None})
    pieces = [sse(ended, str(n)) for n in range(3)]
    gateway.stream("/events", Stream(pieces), Stream([], "close"))

    shown = maoctl("run", "list", "--watch", "-o", how)

    assert shown.code == 6  # the double ends the stream for good
    assert f"run/{SLOW} is no longer listed\n" in shown.err
    if how == "table":
        lines = [line.split()[:2] for line in shown.out.splitlines()]
        assert lines == [["ID", "PHASE"], [FAST, "running"], [SLOW, "queued"], [FAST, "succeeded"]]
        assert shown.out.splitlines()[1].index("running") == shown.out.splitlines()[3].index("succeeded")
    elif how == "json":
        phases = [json.loads(line)["phase"] for line in shown.out.splitlines()]
        assert phases == ["running", "queued", "succeeded"]
    elif how == "name":
        assert shown.out.split() == [f"run/{run}" for run in (FAST, SLOW, FAST)]
    else:
        assert shown.out.count("---\nkind: run\n") == 3


def test_watch_of_a_full_list_says_nothing_of_what_moves_out(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    for items in ([documents.run(OLD)], [documents.run(FAST), documents.run(OLD)]):
        gateway.answer("GET", "/runs", {"items": items, "cursor": None})
    gateway.stream("/events", Stream([sse({}, "1")]), Stream([], "close"))

    shown = maoctl("run", "list", "-w", "--limit", "1", "-o", "name")

    assert shown.out.split() == [f"run/{OLD}", f"run/{FAST}"]
    assert "no longer listed" not in shown.err


def test_watch_of_an_empty_list_waits_for_its_heading(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    for items in ([], [documents.run(FAST)]):
        gateway.answer("GET", "/runs", {"items": items, "cursor": None})
    gateway.stream("/events", Stream([sse({}, "1")]), Stream([], "close"))

    assert maoctl("run", "list", "--watch").out.splitlines()[0].startswith("ID ")


# The newest run's log


def test_logs_of_the_newest_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    missed = documents.run(OLD, "missed", started_at=None, finished_at=None, steps=[])
    gateway.keep("/runs", missed, documents.run(FAST), documents.run(SLOW, pipeline="other"), key="id")
    for run in (FAST, SLOW):
        gateway.answer("GET", f"/runs/{run}/logs", f"log of {run}\n")

    newest = maoctl("run", "logs")
    assert (newest.code, newest.out) == (0, f"log of {FAST}\n")
    assert f"run/{FAST}\n" in newest.err
    assert maoctl("run", "logs", "--pipeline", "other").out == f"log of {SLOW}\n"
    assert maoctl("run", "logs", f"run/{SLOW}").out == f"log of {SLOW}\n"


def test_logs_of_no_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs")
    gateway.keep("/registry/pipelines", documents.pipeline())

    assert maoctl("run", "logs").code == 3
    missed = maoctl("run", "logs", "--pipeline", "dayly")
    assert missed.code == 3
    assert "Did you mean daily?" in missed.err
    assert maoctl("run", "logs", "x", "--pipeline", "daily").code == 2


# The load


def test_top_shows_load_and_active_runs(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal
) -> None:
    disk = {"free": 81 * 1024**3, "total": 400 * 1024**3, "writable": True}
    gateway.answer("GET", "/status", documents.node_status() | {"disk": disk})
    engine = {"version": "29.1", "slots": 4, "cpus": 8, "memory": 32 * 1024**3, "running": 3}
    gateway.answer("GET", "/engine", engine)
    gateway.keep("/runs", documents.run(FAST, "running"), documents.run(SLOW), key="id")

    maoctl("top")

    load, heading, run = (line.split() for line in terminal.shown.splitlines()[1:] if line)
    assert load == ["node-1", "3/4", "1", "0", "8", "32Gi", "81Gi", "free", "(20", "%)", "0"]
    assert heading[:3] == ["RUN", "PHASE", "STEP"]
    assert run[:3] == [FAST, "running", "crawler"]


class Interrupted(list[float]):
    """The pauses of a command that is interrupted in the last of `count`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def append(self, seconds: float, /) -> None:
        super().append(seconds)
        if len(self) == self._count:
            raise KeyboardInterrupt


def answer_loads(gateway: RememberingGateway, *free: int) -> None:
    """Let a node answer successive looks at its load with these free bytes, and one running run."""
    for space in free:
        disk = {"free": space, "total": 400 * 1024**3, "writable": True}
        gateway.answer("GET", "/status", documents.node_status() | {"disk": disk})
    gateway.answer("GET", "/engine", {"version": "29.1", "slots": 4, "cpus": 8, "memory": 1, "running": 3})
    gateway.keep("/runs", documents.run(FAST, "running"), key="id")


@pytest.mark.parametrize("how", ["table", "json", "yaml", "name"])
def test_top_watch_shows_each_change_until_interrupted(
    maoctl: Maoctl, gateway: RememberingGateway, how: str
) -> None:
    answer_loads(gateway, 9, 8, 7)  # free space alone is no change
    gateway.answer("GET", "/engine", {"version": "29.1", "slots": 4, "cpus": 8, "memory": 1, "running": 3})
    gateway.answer("GET", "/engine", {"version": "29.1", "slots": 4, "cpus": 8, "memory": 1, "running": 4})
    maoctl.pauses = Interrupted(3)

    shown = maoctl("top", "--watch", "--interval", "5s", "-o", how)

    assert shown.code == 130
    assert maoctl.pauses == [5.0] * 3
    if how == "json":
        assert [json.loads(line)["slots_used"] for line in shown.out.splitlines()] == [3, 4]
    elif how == "yaml":
        assert [load["runs"] for load in yaml.safe_load_all(shown.out)] == [[FAST], [FAST]]
    elif how == "name":
        assert shown.out == "load/node-1\n" * 2
    else:
        assert [line.split()[1] for line in shown.out.splitlines() if line.startswith("node-1")] == [
            "3/4",
            "4/4",
        ]


def test_top_watch_redraws_a_terminal(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_loads(gateway, 9)
    monkeypatch.setenv("TERM", "xterm")
    maoctl.pauses = Interrupted(2)
    assert maoctl("top", "-w").code == 130
    assert terminal.shown.count("\x1b[H\x1b[2J") == 2
    assert terminal.shown.count("node-1 ") == 2

    before = len(terminal.shown)
    monkeypatch.setenv("TERM", "dumb")
    maoctl.pauses = Interrupted(2)
    maoctl("top", "-w")
    assert "\x1b[" not in terminal.shown[before:]
    assert terminal.shown[before:].count("node-1 ") == 1  # nothing has changed


def test_top_watch_survives_an_outage_of_the_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    answer_loads(gateway, 9)
    gateway.problem("GET", "/status", 503, "store-unavailable")
    answer_loads(gateway, 8)
    maoctl.pauses = Interrupted(3)
    shown = maoctl("top", "--watch", "-o", "name")
    assert (shown.code, shown.out) == (130, "load/node-1\n")
    assert "It is store-unavailable." in shown.err

    maoctl.url, maoctl.pauses = "http://127.0.0.1:9", Interrupted(3)
    assert maoctl("top", "--watch").code == 6  # at once, if nothing was shown before


def test_top_without_an_engine(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/status", documents.node_status())
    gateway.problem("GET", "/engine", 503, "engine-unavailable")
    gateway.keep("/runs")

    shown = maoctl("top", "-o", "json")

    assert shown.code == 0
    load = json.loads(shown.out)
    assert (load["kind"], load["slots"], load["runs"]) == ("load", None, [])
    assert "The engine's load is not known" in shown.err
