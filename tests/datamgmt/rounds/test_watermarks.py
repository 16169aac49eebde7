"""Runs outlive their rounds: ended rounds are not reopened, and rounds delayed by an outage are made up."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mao_datamgmt.rounds.validation import is_tick_over
from mao_shared import keys
from mao_shared.models import Attestation, Enrolment, Round, Run, SharedDataset, round_id, tick_run_id
from mao_shared.runs.records import RunRecords
from mao_shared.states import RunPhase
from mao_shared.store import Entry, Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.datamgmt.world import writes
from tests.support.waiting import eventually, eventually_answers

from .federation import PIPELINE, Federation, Node, federation, tick
from .test_decide import TICK, X, Y, a_round, attests, said
from .test_outages import once
from .test_retention import OLD, collected, later, spoken

DAY = timedelta(days=1)


async def settled(node: Node) -> None:
    """Wait until the node has processed all its runs and made its announcements."""
    assert node.manager is not None
    announcer = node.manager.rounds.announcer
    await eventually(lambda: announcer.complete and not announcer.waiting)


async def restart(fed: Federation) -> None:
    for node in fed.nodes:
        await node.stop()
        await node.start()
        await settled(node)


async def only(fed: Federation, *left: Round) -> None:
    """Run retention until only these rounds are left and the deleted ones are recorded as passed."""
    await later(fed, keep=0)
    await later(fed, keep=0)
    assert {round_.id for round_ in await fed.rounds()} == {round_.id for round_ in left}


async def passed(node: Node) -> dict[str, datetime]:
    stored = await Records(node.own, keys.shared_prefix(node.name), SharedDataset).get("data")
    assert stored is not None
    return {of: watermark.tick for of, watermark in stored.record.passed.items()}


async def test_watermarks_decided_round_is_not_reopened_after_removal(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        *_, last = await collected(fed, *range(OLD, OLD + 4))
        await only(fed, last)
        await restart(fed)
        (new,) = await collected(fed, 0)
        assert [round_.id for round_ in await fed.rounds()] == [last.id, new.id]
        assert {of for _, _, of in await spoken(fed.store)} == {last.id, new.id}
        assert len(fed.truth()) == len(set(fed.truth())) == 5


async def test_watermarks_undecided_round_is_not_reopened(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        for number in (OLD, OLD + 1):
            await fed["a"].collect(number, writes(a=str(number)))
            assert (await fed.ended(number)).phase == "undecided"
        await only(fed)
        gone = {"crawl/collect": tick(OLD + 1)}
        await eventually_answers(lambda: _is(fed["a"], gone))
        await restart(fed)
        (new,) = await collected(fed, 0)
        assert [round_.id for round_ in await fed.rounds()] == [new.id]


def days_ago(run: Run) -> Run:
    """Return the run with its times moved into the past."""
    step = run.steps[0]
    times = {phase: min(moment, run.scheduled_for or moment) for phase, moment in step.times.items()}
    return run.with_step(0, step.model_copy(update={"times": times}))


async def test_watermarks_node_cut_off_does_not_reopen(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        (first,) = await collected(fed, OLD - 1)
        fed["c"].link.cut()
        *_, last = await collected(fed, *range(OLD, OLD + 3))
        for _ in range(2):
            await later(fed, "ab", keep=0)
        assert [round_.id for round_ in await fed.rounds()] == [first.id, last.id]
        await fed["c"].stop()
        for stored in await fed["c"].runs.all():
            await fed["c"].change(stored.record.id, days_ago)
        await fed["c"].start()
        fed["c"].link.mend()
        await settled(fed["c"])
        (new,) = await collected(fed, 0)
        assert sorted(new.commits) == ["node-a", "node-b", "node-c"]
        assert [round_.id for round_ in await fed.rounds()] == [first.id, last.id, new.id]
        assert len(fed.truth()) == len(set(fed.truth())) == 5


async def test_watermarks_backfilled_tick_gets_its_round(tmp_path: Path) -> None:
    """Backfill a tick after the rounds of later ticks were decided and deleted."""
    async with federation(tmp_path, MemoryStore()) as fed:
        *_, last = await collected(fed, OLD - 1, OLD + 1, OLD + 2)
        await only(fed, last)
        await eventually_answers(lambda: _is(fed["c"], {"crawl/collect": tick(OLD + 1)}))
        (late,) = await collected(fed, OLD)
        assert (late.phase, len(late.commits)) == ("decided", 3)
        await restart(fed)
        assert len(fed.truth()) == len(set(fed.truth())) == 4


@pytest.mark.parametrize("then", ["goes on", "is started again", "is started again with its runs history"])
async def test_watermarks_outage_of_days_is_announced_in_order(tmp_path: Path, then: str) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        *_, last = await collected(fed, OLD - 2, OLD - 1)
        await only(fed, last)
        for node in fed.nodes:
            node.link.cut()
        numbers = [*range(OLD, OLD + 3), 0]
        for number in numbers:
            await fed.collect(number, [writes(a=str(number))] * 3)
        for node in fed.nodes if then != "goes on" else []:
            await node.stop()
            if then.endswith("history"):
                records = RunRecords(node.own, node.name)
                live, _ = await records.live_page(100, None)
                assert await records.move(live) == len(live) >= len(numbers)
            await node.start()
        for node in fed.nodes:
            node.link.mend()
        rounds = [await fed.ended(number) for number in numbers]
        assert [(round_.phase, len(round_.commits)) for round_ in rounds] == [("decided", 3)] * 4
        assert fed.truth()[:4] == [round_.id for round_ in reversed(rounds)]


async def test_watermarks_quorum_that_was_away_is_heard(tmp_path: Path) -> None:
    """Node a missed the first tick, and the second was undecided without the others."""
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}) as fed:
        (before,) = await collected(fed, OLD - 1)
        for name in "bc":
            fed[name].link.cut()
            await fed[name].collect(OLD, writes(a="first"))
        await asyncio.gather(*(node.collect(OLD + 1, writes(a="second")) for node in fed.nodes))
        assert (await fed.ended(OLD + 1)).phase == "undecided"
        await later(fed, "a", keep=0)
        await later(fed, "a", keep=0)
        assert [round_.id for round_ in await fed.rounds()] == [before.id]
        for name in "bc":
            fed[name].link.mend()
        rounds = [await fed.ended(number) for number in (OLD, OLD + 1)]
        assert [round_.phase for round_ in rounds] == ["decided", "decided"]
        once(fed, [before, *rounds])


async def test_watermarks_keep_nothing_of_other_rounds(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        await collected(fed, OLD)
        forged = [
            a_round(id=round_id(TICK, "x", "y"), pipeline="x", step="y", phase="undecided"),
            a_round(id="misnamed", pipeline="crawl", step="collect", phase="undecided"),
        ]
        rounds = Records(fed.store, keys.rounds_prefix("data"), Round)
        for round_ in forged:
            revision = await rounds.create(round_.id, round_.changed(ended_at=round_.tick - DAY))
            await rounds.delete(round_.id, revision)
        (second,) = await collected(fed, OLD + 1)
        await only(fed, second)
        gone = {"crawl/collect": tick(OLD)}
        await eventually_answers(lambda: _is(fed["a"], gone))


async def _is(node: Node, wanted: dict[str, datetime]) -> bool:
    return await passed(node) == wanted


# pure


def votes(round_: Round) -> dict[str, Attestation]:
    return dict.fromkeys(round_.nodes[:2], attests(X).record) if round_.commit else {}


LATER = {"id": round_id(TICK + DAY, "crawl", "collect"), "tick": TICK + DAY, "commit": X, "tree": X}


@pytest.mark.parametrize(
    ("known", "done", "over"),
    [
        ({}, -2, True),
        ({}, -1, False),  # its round may still exist, and had enough time
        ({}, 9, False),  # made up for since
        ({"phase": "undecided"}, -2, False),
        ({"commit": None}, -2, False),  # nobody attests it
        ({"commit": Y}, -2, False),
        ({"step": "other", "id": round_id(TICK + DAY, "crawl", "other")}, -2, False),
        ({"id": "misnamed"}, -2, False),
        ({"tick": TICK - DAY, "id": round_id(TICK - DAY, "crawl", "collect")}, -2, False),
        ({"dataset": "else"}, -2, False),
    ],
)
def test_is_tick_over(known: dict[str, object], done: int, over: bool) -> None:
    later_one = a_round(**{**LATER, "phase": "decided", **known})
    assert is_tick_over(said("a", X).record, TICK + done * DAY, [later_one], votes) is over


def test_is_tick_over_false_time_proves_nothing() -> None:
    def lie(_: Round) -> dict[str, Attestation]:
        return {"a": attests(X).record, "liar": attests(X, attested_at=TICK + 99 * DAY).record}

    assert not is_tick_over(said("a", X).record, TICK, [a_round(**LATER, phase="decided")], lie)


async def test_announcer_does_not_read_announced_history_at_start(tmp_path: Path) -> None:
    """Neither a node alone nor one that has announced everything reads the history."""
    async with federation(tmp_path, MemoryStore()) as fed:
        await collected(fed, -3, -2, -1)
        node = fed.nodes[0]
        await fed.collect(0, [writes(a="0")] * 3)
        await fed.ended(0)
        for number in (-10, -9):  # of a pipeline that writes an unshared dataset
            run_id = tick_run_id("own", node.name, tick(number))
            run = Run(
                id=run_id, pipeline="own", node=node.name, trigger="schedule", phase=RunPhase.SUCCEEDED,
                scheduled_for=tick(number), created_at=tick(number), steps=[node.step("mine")],
            )  # fmt: skip
            await node.runs.create(run_id, run)
        await node.stop()
        for name, dataset in ((PIPELINE, "data"), ("own", "mine")):
            record = Enrolment(
                pipeline=name, node=node.name, steps=[node.step(dataset).spec],
                pipeline_revision=1, enrolled_at=tick(0),
            )  # fmt: skip
            await node.own.create(keys.enrolment(node.name, name), dump(record))
        records = RunRecords(node.own, node.name)
        live, _ = await records.live_page(100, None)
        assert await records.move(live) == 6
        read: list[str] = []
        get = node.own.get

        async def noting(key: str) -> Entry | None:
            read.append(key)
            return await get(key)

        node.own.get = noting  # type: ignore[method-assign]
        await node.start()
        await settled(node)
        assert [key for key in read if key.startswith(keys.runs_root(node.name))] == []
        node.own.get = get  # type: ignore[method-assign]
        await fed.collect(1, [writes(a="1")] * 3)
        assert (await fed.ended(1)).phase == "decided"
