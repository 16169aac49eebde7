"""Control metrics are read from a tool's output, stored with the run, and judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mao_datamgmt.monitoring.extract import (
    UnreadableMetric,
    aggregate,
    column_numbers,
    iter_lines,
    json_number,
    table_rows,
)
from mao_datamgmt.monitoring.series import MAX_POINTS, judge, with_point
from mao_git import ContentStream
from mao_shared.errors import StoreUnknown
from mao_shared.models import Alarm, ControlMetric, Run, Series
from mao_shared.models.alarm import Aggregate
from mao_shared.states import StepPhase
from mao_shared.store import Check, Put, Write
from mao_shared.store.memory import MemoryStore
from tests.vote.test_detector import hub, played, real

from .world import BEGIN, NODE, World, run_of, step, working, writes

pytestmark = pytest.mark.virtual_time

METRICS = [
    ControlMetric(name="total", file="out/summary.json", pointer="/images/0/total", unit="images"),
    ControlMetric(name="mean", file="table.csv", column="size", aggregate="mean"),
    ControlMetric(name="files", measure="files"),
    ControlMetric(name="rows", measure="rows"),
    ControlMetric(name="bytes", measure="bytes"),
]


def opened(data: bytes) -> ContentStream:
    return ContentStream(len(data), iter((data,)))


def watched(world: World, run_id: str, after: int, metrics: list[ControlMetric]) -> Run:
    one = step("collect", "data", world.master)
    spec = one.spec.model_copy(update={"metrics": metrics})
    return run_of(run_id, one.model_copy(update={"spec": spec}), after=after)


def summary(total: float, sizes: str = "size,x\n1,a\n,b\n5,c\n") -> dict[str, str]:
    return {"out__summary.json": json.dumps({"images": [{"total": total}]}), "table.csv": sizes}


async def series_of(world: World, metric: str) -> Series:
    stored = await world.manager.series.get(f"pipeline/collect/{metric}")
    assert stored is not None
    return stored.record


async def alarms_of(world: World) -> list[Alarm]:
    return (await world.manager.alarms.list_(False, 100, None)).items


async def test_series_metrics_of_a_run_are_kept_with_it(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(watched(world, "run-1", 0, METRICS), writes(**summary(7)))
        done = await world.analysed("run-1")
        size = len(summary(7)["out__summary.json"]) + len(summary(7)["table.csv"])
        assert done.metrics == {"total": 7, "mean": 3, "files": 2, "rows": 3, "bytes": size}
        series = await series_of(world, "total")
        assert [(point.run, point.value, point.accepted) for point in series.points] == [("run-1", 7, True)]
        assert series.unit == "images"
        assert await alarms_of(world) == []


async def test_series_spike_is_an_alarm_and_the_run_succeeds_all_the_same(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        for number, total in enumerate([100, 101, 99, 100, 100, 101, 99, 300, 100]):
            run = watched(world, f"run-{number}", number, METRICS[:1])
            await world.whole(run, writes(**summary(total), stamp=str(number)))
            assert (await world.analysed(run.id)).phase is StepPhase.SUCCEEDED
        [alarm] = await alarms_of(world)
        assert (alarm.kind, alarm.run, alarm.metric, alarm.value) == ("spike", "run-7", "total", 300)
        assert alarm.expected == pytest.approx(100, abs=2)
        assert "total of step collect is 300 images, expected" in alarm.detail
        assert [point.accepted for point in (await series_of(world, "total")).points] == [True] * 7 + [
            False,
            True,
        ]


async def test_series_unreadable_file_raises_alarm_only(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.whole(watched(world, "run-1", 0, METRICS), writes(**summary(7, "other\n1\n"), more="1"))
        done = await world.analysed("run-1")
        assert (done.phase, done.metrics["total"]) == (StepPhase.SUCCEEDED, 7)
        assert "mean" not in done.metrics
        [alarm] = await alarms_of(world)
        assert (alarm.kind, alarm.metric) == ("metric-unreadable", "mean")
        assert "no column 'size'" in alarm.detail


class ForgetfulStore(MemoryStore):
    """Lose the write that ends a step once, like a kill at that moment."""

    lost = False

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        puts = [write for write in writes if isinstance(write, Put) and "/runs/" in write.key]
        if any(b'"succeeded"' in write.value for write in puts) and not self.lost:
            self.lost = True
            raise StoreUnknown("the answer did not come")
        return await super().transact(checks, writes)


async def test_series_run_that_is_published_again_counts_once(tmp_path: Path) -> None:
    async with working(tmp_path, ForgetfulStore()) as world:
        await world.whole(watched(world, "run-1", 0, METRICS[:2]), writes(**summary(7, "x\n1\n")))
        done = await world.analysed("run-1")
        assert (done.phase, done.metrics) == (StepPhase.SUCCEEDED, {"total": 7})
        assert [point.run for point in (await series_of(world, "total")).points] == ["run-1"]
        assert len(await alarms_of(world)) == 1


def test_series_keeps_its_newest_points_and_one_for_a_run() -> None:
    series = Series(pipeline="p", step="s", metric="m")
    for number in range(MAX_POINTS + 10):
        series, _ = with_point(series, f"run-{number}", BEGIN, 100 + number % 3)
    assert (len(series.points), series.points[0].run) == (MAX_POINTS, "run-10")
    again, judgement = with_point(series, "run-50", BEGIN, 9e9)
    assert again is series
    assert judgement.accepted


@real
def test_series_production_judges_the_real_series_as_the_detector_does() -> None:
    for values in hub()[:2]:
        series = Series(pipeline="p", step="s", metric="m")
        found = []
        for number, value in enumerate(values):
            series, judgement = with_point(series, f"run-{number}", BEGIN, value)
            found.append(judgement.verdict != "accepted")
        assert found == played(values)[1]
        assert judge(series.points[:-1], values[-1], BEGIN) == judgement


@pytest.mark.parametrize(
    ("text", "pointer", "why"),
    [
        ("[" * 100_000, "", "not valid JSON"),
        ('{"a": NaN}', "/a", "not valid JSON"),
        ("9" * 5000, "", "not valid JSON"),
        ('{"a": true}', "/a", "is true or false, not a number"),
        ('{"a": "1"}', "/a", "is text, not a number"),
        ('{"a": [1]}', "/a/01", "points at nothing"),
        ('{"a": [1]}', "/a/-1", "points at nothing"),
        ('{"a": 1}', "a", "begins with"),
        ('\xff{"a": 1}', "/a", "not valid JSON"),
        ("", "", "not valid JSON"),
    ],
)
def test_series_hostile_json(text: str, pointer: str, why: str) -> None:
    with pytest.raises(UnreadableMetric, match=why):
        json_number(opened(text.encode("latin-1")), pointer)


def test_series_pointers_are_unescaped() -> None:
    assert json_number(opened(b'{"a/b": {"m~n": [0, 2.5]}}'), "/a~1b/m~0n/1") == 2.5


@pytest.mark.parametrize(
    ("how", "value"),
    [("first", 3), ("last", 2), ("sum", 6), ("mean", 2), ("min", 1), ("max", 3), ("count", 3)],
)
def test_series_columns(how: Aggregate, value: float) -> None:
    lines = iter_lines(opened(b'\xef\xbb\xbf"size",x\r\n3,"a\nb"\r\n\r\n1\r\n , \r\n2,c'))
    assert aggregate(column_numbers(table_rows("x.csv", lines), "size", how), how) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no column"),
        (b"size\n", "no value"),
        (b"size\n1\nx\n", "line 3 has 'x'"),
        (b"size\n1_0\n", "not a number"),
        (b"size\n\xff\n", "not UTF-8"),
        (b"x" * 3_000_000, "a line is longer"),
    ],
)
def test_series_hostile_columns(data: bytes, why: str) -> None:
    def read() -> float:
        return aggregate(column_numbers(table_rows("x.csv", iter_lines(opened(data))), "size", "sum"), "sum")

    with pytest.raises(UnreadableMetric, match=why):
        read()


@pytest.mark.parametrize(
    ("path", "text", "total"),
    [
        ("a.csv", "city;size\nRome, IT;1,5\nBern;2\n", 3.5),
        ("a.csv", "city;size\nRome;1.234,5\nBern;2\n", 1236.5),
        ("a.csv", "city;size\nRome;1,5,2\nBern;2\n", None),
        ("a.csv", "city;size\nRome;1.5\nBern;2\n", 3.5),
        ("a.csv", '"city, state";size\n"Rome, IT";1\n"Bern, CH";2\n', 3),
        ("a.tsv", "city, state\tsize\nRome, IT\t1\nBern, CH\t2\n", 3),
        ("a.csv", "\n\ncity|size\n\nRome|1\n\nBern|2\n", 3),
    ],
)
def test_series_column_numbers_finds_the_separator(path: str, text: str, total: float | None) -> None:
    def read() -> float:
        return aggregate(
            column_numbers(table_rows(path, iter_lines(opened(text.encode()))), "size", "sum"), "sum"
        )

    if total is None:
        with pytest.raises(UnreadableMetric, match="'1,5,2', which is not a number"):
            read()
    else:
        assert read() == total


def test_series_table_rows_says_when_the_separator_is_unclear() -> None:
    with pytest.raises(UnreadableMetric, match="may separate"):
        table_rows("a.csv", ["a;b,size\n", "1;2,3\n"])


async def test_series_no_file_of_that_name_and_infinite_numbers(tmp_path: Path) -> None:
    metrics = [
        ControlMetric(name="away", file="../master.git/HEAD", pointer=""),
        ControlMetric(name="endless", file="table.csv", column="size", aggregate="max"),
        ControlMetric(name="quoted", file="bad.csv", column="size"),
    ]
    async with working(tmp_path) as world:
        files = {"table.csv": "size\ninf\n", "bad.csv": 'size\n"' + "x" * 200_000}
        await world.whole(watched(world, "run-1", 0, metrics), writes(**files))
        done = await world.analysed("run-1")
        assert (done.phase, done.metrics) == (StepPhase.SUCCEEDED, {})
        assert {alarm.metric for alarm in await alarms_of(world)} == {"away", "endless", "quoted"}
        assert {alarm.node for alarm in await alarms_of(world)} == {NODE}
