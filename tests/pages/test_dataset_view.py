"""What the pages of datasets decide, without a browser."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages.datasets import histories, view
from mao_gateway.pages.datasets.view import BranchHistory, ValueQuestion
from mao_gateway.pages.formats import Clock
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Alarm, ControlMetric, Series
from mao_shared.models.alarm import Point
from mao_shared.models.dataset import (
    BranchStatus,
    DatasetStatus,
    FileInfo,
    FilePreview,
    Outbox,
    ValueVersion,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CLOCK = Clock(NOW, ZoneInfo("Europe/Zurich"))


def status(state: str, unpushed: int) -> DatasetStatus:
    outbox = Outbox(state=state, waiting=unpushed)
    return DatasetStatus(name="d", master="/x", branches=[], unpushed=unpushed, outbox=outbox, size=0)


@pytest.mark.parametrize(
    ("state", "unpushed", "shown"),
    [
        ("in-sync", 0, ("ok", "ok", "pushed")),
        ("waiting", 1, ("push", "warn", "1 commit waits")),
        ("refused", 6, ("push", "bad", "6 commits wait")),
        ("diverged", 2, ("push", "bad", "2 commits wait")),
        ("in-sync", 3, ("push", "warn", "3 commits wait")),
    ],
)
def test_view_state(state: str, unpushed: int, shown: tuple[str, str, str]) -> None:
    assert view.dataset_state(status(state, unpushed)) == shown


def version(value: str | None, hour: int, **fields: Any) -> ValueVersion:
    state = "unreadable" if value is None else "value"
    moment = NOW + timedelta(hours=hour)
    return ValueVersion(time=moment, commit=f"{hour:040x}", state=state, value=value, **fields)


def test_view_history_is_matched_by_tick() -> None:
    tick = NOW - timedelta(days=1)
    own = BranchHistory("a", [version("2", 3), version("1", 1, tick=tick)])
    truth = BranchHistory("b", [version("1.5", 2, tick=tick)])
    rows = view.history_rows([own, truth])
    assert [row.moment for row in rows] == [NOW + timedelta(hours=3), tick]
    assert [[found and found.value for found in row.versions] for row in rows] == [["2", None], ["1", "1.5"]]


def test_view_plot_keeps_a_value_until_the_next_version() -> None:
    own = BranchHistory("a", [version("3", 3), version(None, 2), version("1", 0)])
    truth = BranchHistory("b", [version('"2.5"', 1)])
    rows = view.history_rows([own, truth])
    drawn = view.draw_history([own, truth], rows, "<v>", CLOCK)
    assert drawn is not None
    assert "&lt;v&gt; at 4 moments: a 1 to 3, b 2.500 to 2.500." in drawn
    assert drawn.count('class="dot"') == 3  # a's at three of four moments
    assert 'class="line2"' in drawn


def test_view_no_plot_of_words() -> None:
    found = [BranchHistory("a", [version("ok", 3), version("nan", 2), version("1", 1)])]
    assert view.draw_history(found, view.history_rows(found), "v", CLOCK) is None
    assert view.draw_history([], [], "v", CLOCK) is None


def test_view_metric_marks_outliers() -> None:
    points = [
        Point(run=f"r{number}", time=NOW + timedelta(hours=number), value=value, accepted=value < 9)
        for number, value in enumerate((1.0, 9.0, 5.0))
    ]
    series = Series(pipeline="p", step="s", metric="m", unit="ms", points=points)
    shift = Alarm(id="x", kind="level-shift", node="n", raised_at=NOW, run="r2", metric="m", detail="d")
    found = view.outliers(series, [shift])
    assert [(outlier.point.run, outlier.level) for outlier in found] == [("r2", True), ("r1", False)]
    drawn = view.draw_metric(series, found, CLOCK)
    assert drawn.count('class="dot-bad"') == 1
    assert drawn.count('class="dot-warn"') == 1
    assert 'role="img"' in drawn
    assert "<a " not in drawn
    assert "2 outliers" in drawn


@pytest.mark.parametrize(
    ("metric", "source"),
    [
        ({"measure": "rows"}, "rows of the output"),
        ({"file": "a.json", "pointer": "/x"}, "a.json, value at /x"),
        ({"file": "a.csv", "column": "v", "aggregate": "mean"}, "a.csv, column v, mean"),
    ],
)
def test_view_metric_source(metric: dict[str, Any], source: str) -> None:
    assert view.WatchedMetric("p", "s", ControlMetric(name="m", **metric)).source == source


def test_view_time_labels() -> None:
    hours = [NOW + timedelta(hours=number) for number in range(10)]
    assert view.time_labels(hours, CLOCK) == ["Sat 13:00", "Sat 16:00", "Sat 19:00", "Sat 22:00 CET"]
    days = [NOW + timedelta(days=40 * number) for number in range(3)]
    assert view.time_labels(days, CLOCK) == ["31 Jan", "12 Mar", "21 Apr CEST"]
    assert view.time_labels([NOW, NOW + timedelta(days=400)], CLOCK) == ["Jan 2026", "Mar 2027 CET"]
    assert view.time_labels([], CLOCK) == []


def test_view_default_file() -> None:
    def info(name: str, kind: str = "file") -> FileInfo:
        return FileInfo(name=name, path=name, kind=kind, size=1, id="x", executable=False)

    assert (
        view.default_file([info(".a.csv"), info("a.bin"), info("d.csv", "folder"), info("b.TSV")]) == "b.TSV"
    )
    assert view.default_file([info("d", "folder"), info("a.bin")]) == "a.bin"
    assert view.default_file([]) == ""


def preview(key: list[str], rows: list[list[str | None]]) -> FilePreview:
    columns = ["id", "day", "v"]
    return FilePreview(commit="c", path="p", size=1, kind="table", columns=columns, key=key, rows=rows)


def test_view_keys_and_numbers_of_a_preview() -> None:
    rows: list[list[str | None]] = [["a", "1", "1.5"], ["b", "2", ""], ["c,d", "x", None]]
    assert view.record_keys(preview(["id"], rows)) == ["a", "b", "c,d"]
    assert view.record_keys(preview(["id", "day"], rows)) == ['["a", "1"]', '["b", "2"]', '["c,d", "x"]']
    assert view.record_keys(preview([], rows)) is None
    assert view.number_columns(preview(["id"], rows)) == [False, False, True]
    assert view.number_columns(preview(["id"], [])) == [False, False, False]


@pytest.mark.parametrize("words", [("a b", "-x", "f"), ("a'b.csv", "", "v"), ("t.csv", "k", "$(id)")])
def test_view_history_command_is_one_for_a_shell(words: tuple[str, str, str]) -> None:
    line = shlex.split(view.history_command("data", ValueQuestion(*words), "node-1"))
    assert line[:5] == ["maoctl", "dataset", "history", "--branch", "node-1"]
    assert tuple(line[-3:]) == words
    assert ("--" in line) == any(word.startswith("-") for word in words)


def test_view_link_leaves_out_what_is_empty() -> None:
    assert view.link(ref="a/b", path="", offset=0, key="x&y") == "?ref=a%2Fb&key=x%26y"


class HistoryApi:
    """Answers questions about histories, and counts them. `answer`: JSON lines, or an error; None: never."""

    def __init__(self, answer: str | MaoError | None = "") -> None:
        self.answer, self.asked = answer, 0

    async def text(self, path: str, /, **query: Any) -> str:
        self.asked += 1
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, MaoError):
            raise self.answer
        return str(self.answer)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Coroutine[Any, Any, list[BranchHistory]]]:
    """Return `read_histories` with a memory of its own, and short limits of time."""
    monkeypatch.setattr(histories, "_histories", histories.Histories())
    monkeypatch.setattr(histories, "HISTORY_SECONDS", 0.01)
    return partial(histories.read_histories, name="d", asked=ValueQuestion("t.csv", "x", "v"))


async def test_page_does_not_wait_for_a_history_of_large_files(read: Any) -> None:
    api = HistoryApi(None)
    for _ in range(2):  # the second page that refreshes itself does not ask again at once
        found = await read(api, tips={"a": "1", "b": "2"})
        assert [(history.branch, history.versions) for history in found] == [("a", ()), ("b", ())]
        assert all(history.error is not None and history.error.next for history in found)
    assert api.asked == 2


async def test_history_is_read_again_only_when_its_branch_has_moved(read: Any) -> None:
    line = version("7", 1).model_dump_json()
    api = HistoryApi(f"{line}\n\n")
    for _ in range(3):
        [found] = await read(api, tips={"a": "1"})
        assert [each.value for each in found.versions] == ["7"]
    assert api.asked == 1
    assert [each.branch for each in await read(api, tips={"b": "1"})] == ["b"]  # at the same commit
    assert api.asked == 1
    await read(api, tips={"a": "2"})
    await read(api, tips={"a": "2"}, asked=ValueQuestion("t.csv", "y", "v"))
    assert api.asked == 3


async def test_history_that_failed_is_asked_for_again_later(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = HistoryApi(NotFound("no such branch"))
    assert (await read(api, tips={"a": "a"}))[0].error is not None
    monkeypatch.setattr(histories, "RETRY_SECONDS", -1.0)
    api.answer = ""
    assert (await read(api, tips={"a": "a"}))[0].error is None


async def test_histories_that_are_kept_are_bounded(read: Any) -> None:
    api = HistoryApi()
    for number in range(histories.MAX_KEPT + 3):
        await read(api, tips={"a": str(number)})
    assert len(histories._histories._kept) == histories.MAX_KEPT


def test_tips_of_the_branches_of_a_value() -> None:
    branches = [
        BranchStatus(name=name, commit=f"c-{name}", time=NOW, subject="s", here=True)
        for name in ("ground-truth", "n", "other")
    ]
    asked = ValueQuestion("f", "k", "v")
    assert view.tips(branches, asked, "n") == {"n": "c-n", "ground-truth": "c-ground-truth"}
    assert view.tips(branches, ValueQuestion("f", "k", "v", "other"), "n") == {"other": "c-other"}
    assert view.tips(branches, ValueQuestion("f", "k", "v", "abc123"), "n") == {"abc123": "abc123"}
    assert view.tips([], asked, "n") == {}
