"""What the pages of pipelines show, decided without a browser."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from mao_gateway.pages.formats import Clock
from mao_gateway.pages.pipelines import view
from mao_gateway.pages.pipelines.listing import is_shown, last_runs, matches, pipeline_rows
from mao_gateway.pages.pipelines.run_bars import FEW_RUNS, MAX_RUNS, draw_history, grid_top, make_history
from mao_gateway.pages.pipelines.schedules import (
    changed_schedule,
    coming_ticks,
    parse_moment,
    schedule_commands,
    zone_named,
)
from mao_registry.consent.definition import describe_changes
from mao_shared.errors import InvalidInput
from mao_shared.models import Job, NodeRuns, Pipeline, PipelineState, Run, RunBrief, Step
from mao_shared.models.schedule import ScheduleRequest

NOW = datetime(2026, 11, 30, 13, 32, tzinfo=UTC)
ZURICH = Clock(NOW, ZoneInfo("Europe/Zurich"))


def job(**fields: Any) -> Job:
    made = {"id": "daily-1", "pipeline": "daily", "cron": "0 4 * * *", "created_at": NOW}
    return Job.model_validate(made | fields)


def run(minutes_ago: float, phase: str = "succeeded", **fields: Any) -> Run:
    at = NOW - timedelta(minutes=minutes_ago)
    made = {
        "id": f"{at:%Y%m%dT%H%M%SZ}-daily-00000000",
        "pipeline": "daily",
        "node": "n1",
        "trigger": "manual",
        "phase": phase,
        "created_at": at,
    }
    return Run.model_validate(made | fields)


def steps(*triples: tuple[str, str, str | None]) -> list[Step]:
    return [Step(tool=tool, dataset=dataset, input_dataset=read) for tool, dataset, read in triples]


@pytest.mark.parametrize(
    ("triples", "expected"),
    [
        ([("a", "x", None)], [["a", "x"]]),
        ([("a", "x", None), ("b", "y", "x")], [["a", "x", "b", "y"]]),
        ([("a", "x", None), ("b", "y", None)], [["a", "x"], ["b", "y"]]),
        ([("a", "x", "w"), ("b", "y", "w")], [["w", "a", "x"], ["w", "b", "y"]]),
        ([("a", "x", None), ("b", "y", "x"), ("c", "z", "x")], [["a", "x", "b", "y"], ["x", "c", "z"]]),
    ],
)
def test_chains_join_steps_that_read_what_was_written(
    triples: list[tuple[str, str, str | None]], expected: list[list[str]]
) -> None:
    assert [[node.name for node in chain] for chain in view.chains(steps(*triples))] == expected


def test_changes_are_read_as_the_registry_words_them() -> None:
    def document(**fields: Any) -> dict[str, Any]:
        step = {"image": "lab/a:1", "network": "none", "env": {}, "limits": {"memory": 1}, **fields}
        return {"overlap": "skip", "steps": {"crawl": step}}

    after = document(
        image="lab/a:2",
        env={"ARROW": "x → y: z", "EMPTY": ""},
        command=["sh", "-c", "echo 'a b'"],
        limits={"memory": 512 * 1024**2, "time": 7200.0},
    )
    after["overlap"] = "queue"
    after["steps"]["new"] = {"image": "lab/b:1", "network": "none"}
    found = view.read_changes(describe_changes(document(), after))
    by_field = {change.field: change for change in found if not change.note}
    assert (by_field["overlap"].step, by_field["overlap"].before, by_field["overlap"].after) == (
        "",
        "skip",
        "queue",
    )
    assert (by_field["image"].step, by_field["image"].after) == ("crawl", "lab/a:2")
    assert (by_field["env.ARROW"].before, by_field["env.ARROW"].after) == (None, "x → y: z")
    assert by_field["env.EMPTY"].after == ""
    assert by_field["command"].after == "sh -c 'echo '\"'\"'a b'\"'\"''"
    assert (by_field["limits.memory"].before, by_field["limits.memory"].after) == ("1 byte", "512m")
    assert (by_field["limits.time"].before, by_field["limits.time"].after) == (None, "2 h")
    assert [change.note for change in found if change.note] == ['step new is new: "lab/b:1"']


def test_changes_that_are_truncated_stay_text() -> None:
    [change] = view.read_changes([f'step a: command: ["{"x" * 300}… → …{"y" * 9}"]'])
    assert change.before is not None
    assert change.before.endswith("…")


@pytest.mark.parametrize(
    "title", ["Rain, daily", "null", "Über-Lauf \U0001f327", "bidi \u202e here", 'quotes " \\ : #', "- dash"]
)
def test_definition_texts_are_what_was_registered(title: str) -> None:
    made = Pipeline.model_validate(
        {
            "name": title,
            "description": "one\ntwo\ttabs \x85",
            "steps": [
                {"tool": "a", "dataset": "x", "env": {"YES": "no", "N": "1e3"}, "command": ["-c", "{}"]}
            ],
        }
    )
    as_yaml, as_json = view.definition_texts(made)
    for text in (as_yaml, as_json):
        assert not any(char in line for line in text for char in "\n\x85\u202e")
    documents = (yaml.safe_load("\n".join(as_yaml)), json.loads("\n".join(as_json)))
    for document in documents:
        assert document.pop("kind") == "pipeline"
        assert Pipeline.model_validate(document) == made


def test_definition_leaves_defaults_out() -> None:
    made = Pipeline(name="daily", steps=steps(("a", "x", None)))
    assert view.definition_texts(made)[0] == [
        "kind: pipeline",
        "name: daily",
        "steps:",
        "  -",
        "    tool: a",
        "    dataset: x",
        "    name: a",
    ]


def test_other_nodes_without_own_and_uninvolved_ones() -> None:
    brief = RunBrief(id="r1", trigger="schedule", phase="failed", finished_at=NOW)
    rows = [
        NodeRuns(node="n3", pipeline="daily", present=False, problem="it has published no readable runs"),
        NodeRuns(node="n2", pipeline="daily", present=True, runs=[brief], updated_at=NOW, late="2 ticks"),
        NodeRuns(node="n1", pipeline="daily", present=True, runs=[brief]),
        NodeRuns(node="n4", pipeline="daily", present=True),
    ]
    found = view.other_nodes(rows, "n1")
    assert [(node.node, node.last, node.note) for node in found] == [
        ("n2", "failed", "2 ticks"),
        ("n3", None, "it has published no readable runs"),
    ]


def test_history_counts_and_draws_each_kind() -> None:
    begun: dict[str, Any] = {"started_at": NOW - timedelta(minutes=5)}
    runs = [
        run(1, "queued"),
        run(5, "running", **begun),
        run(10, "failed", **begun, finished_at=NOW),
        run(20, "missed", finished_at=NOW, covers={"since": NOW, "until": NOW, "count": 7}),
        run(30, "cancelled"),
        run(40, **begun, finished_at=NOW - timedelta(minutes=3)),
        run(45, trigger="reproduce"),
    ]
    history = make_history(runs, ZURICH)
    assert [bar.kind for bar in history.bars] == ["ok", "other", "missed", "bad", "open", "open"]
    counted = "1 queued, 1 running, 1 succeeded, 1 failed, 1 cancelled, 1 missed"
    assert history.text == f"{counted}; median 2 min"
    assert "7 ticks" in history.bars[2].label
    drawn = draw_history(history)
    assert drawn.count("<a ") == 5
    assert drawn.count("<rect") == 5


@pytest.mark.parametrize("count", [0, 1, FEW_RUNS - 1, FEW_RUNS, MAX_RUNS, MAX_RUNS + 40])
def test_history_is_bounded(count: int) -> None:
    begun = NOW - timedelta(minutes=2)
    history = make_history([run(n, started_at=begun, finished_at=NOW) for n in range(count)], ZURICH)
    assert len(history.bars) == min(count, MAX_RUNS)
    assert len(history.days) == (4 if count >= FEW_RUNS else min(count, 1))
    assert len(draw_history(history)) < 20_000


@pytest.mark.parametrize(
    ("longest", "top"), [(0, 2), (1.9, 2), (61, 120), (200, 240), (7200, 7200), (200_000, 345_600)]
)
def test_history_grid_top(longest: float, top: float) -> None:
    assert grid_top(longest) == top
    assert grid_top(longest) >= longest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-18", "2026-11-17T23:00:00+00:00"),
        ("2026-07-18 06:30", "2026-07-18T04:30:00+00:00"),
        ("2026-11-18T00:00:00Z", "2026-11-18T00:00:00+00:00"),
        (" 2026-11-18T00:00+05:30 ", "2026-11-17T18:30:00+00:00"),
        ("12d", "2026-11-18T13:32:00+00:00"),
        ("90 min", "2026-11-30T12:02:00+00:00"),
        ("2h", "2026-11-30T11:32:00+00:00"),
    ],
)
def test_moment_in_the_zone_of_the_page(text: str, expected: str) -> None:
    assert parse_moment(text, ZURICH, "From").isoformat() == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "0001-01-01", "9999-12-31T23:59-12:00", "2026-13-01", "999999d", "1d2h", "-1d"]
)
def test_moment_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_moment(text, Clock(NOW, ZoneInfo("Asia/Tokyo")), "From")
    assert refused.value.detail.startswith("From")
    assert refused.value.next


def test_coming_ticks_over_a_change_of_the_clock() -> None:
    now = datetime(2026, 10, 24, 12, tzinfo=UTC)
    times = [datetime(2026, 10, day, hour, 30, tzinfo=UTC) for day, hour in ((24, 12), (25, 0), (25, 1))]
    found = coming_ticks(times, "Europe/Zurich", now)
    assert [tick.local.striptags() for tick in found] == [
        "today, 14:30 CEST",
        "Sun 25 Oct, 02:30 CEST",
        "Sun 25 Oct, 02:30 CET",
    ]
    assert [tick.utc for tick in found] == ["12:30 UTC", "00:30 UTC", "01:30 UTC"]


def test_coming_ticks_show_seconds_and_survive_unknown_zones() -> None:
    found = coming_ticks([NOW + timedelta(seconds=10)], "Mars/Olympus", NOW)
    assert found[0].local.striptags() == "today, 13:32:10 UTC"
    assert zone_named("../../etc/passwd").key == "UTC"


def test_changed_schedule_keeps_settings_and_is_a_valid_request() -> None:
    old = job(catch_up="all", start_deadline=600, max_catch_up=5, overlap="replace", paused=True)
    request = ScheduleRequest.model_validate(changed_schedule(old, "@daily", "UTC", False))
    assert (request.name, request.cron, request.catch_up, request.start_deadline) == (
        "daily",
        "@daily",
        "all",
        600,
    )
    assert (request.max_catch_up, request.overlap, request.paused) == (5, "replace", True)


def test_schedule_commands_quote_what_was_typed() -> None:
    [line] = schedule_commands("daily", "0 4 * * *; rm -rf ~", "U'TC", True, None)
    assert line == (
        "maoctl pipeline run daily --cron '0 4 * * *; rm -rf ~' --timezone 'U'\"'\"'TC' --seconds"
    )


def state(name: str, **fields: Any) -> PipelineState:
    made = {"name": name, "steps": [{"tool": "crawler", "dataset": "charts"}]}
    return PipelineState.model_validate(made | fields)


def test_rows_take_the_newest_of_runs_and_ticks() -> None:
    last = {
        "run": "20261130T130000Z-daily-1",
        "scheduled_for": NOW - timedelta(minutes=32),
        "phase": "missed",
    }
    newer = last_runs([run(5, "failed"), run(10)], [job(last=last)])
    assert newer["daily"].phase == "failed"
    older = last_runs([run(60)], [job(last=last)])
    assert (older["daily"].phase, older["daily"].id) == ("missed", last["run"])
    assert last_runs([run(5, trigger="reproduce")], [job()]) == {}


def test_rows_of_schedules() -> None:
    jobs = [
        job(next=NOW + timedelta(hours=2)),
        job(id="daily-2", cron="@hourly", timezone="Asia/Tokyo", next=NOW + timedelta(hours=1)),
        job(id="daily-3", cron="@weekly", paused=True),
    ]
    [row, other] = pipeline_rows([state("daily", enrolled=True), state("other", pending=["x"])], jobs, [])
    assert row.next == NOW + timedelta(hours=1)
    assert row.schedules == (("@hourly Asia/Tokyo", False), ("0 4 * * * UTC", False), ("@weekly UTC", True))
    shown = {show: is_shown(row, show) for show in ("all", "enrolled", "other", "pending", "paused")}
    assert shown == {"all": True, "enrolled": True, "other": False, "pending": False, "paused": True}
    assert (other.schedules, other.next, other.last, is_shown(other, "pending")) == ((), None, None, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", True), ("DAILY", True), ("craw chart", True), ("daily nowhere", False), ("Niederschlag", True)],
)
def test_search_needs_every_word(text: str, expected: bool) -> None:
    assert matches(state("daily", description="Täglicher NIEDERSCHLAG"), text) is expected
