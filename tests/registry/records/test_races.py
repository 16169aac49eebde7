"""A delete and a new reference cannot both succeed, in whatever order their calls reach the store."""

from __future__ import annotations

import itertools
import random
from typing import cast

import pytest

from mao_registry.records.stores import Repositories
from mao_registry.registry import Registry, build
from mao_shared import keys
from mao_shared.clock import SystemClock
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound, StillReferenced
from mao_shared.models import Dataset, EnrolmentRequest, Member, Pipeline, PipelineInit, Schedule, Step, Tool
from mao_shared.store import Check, Put, Store
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump
from tests.registry.doubles import PausingStore, RememberedAgreements, WillingServices, interleave

TURNS = list(itertools.product((0, 1), repeat=9))
RANDOM = random.Random(7)
LONG_TURNS = [
    [int(RANDOM.random() < bias) for _ in range(24)] for bias in (0.2, 0.5, 0.7, 0.9) for _ in range(100)
]
PIPELINE = Pipeline(name="p", steps=[Step(tool="t", dataset="d")])
INIT = PipelineInit(name="p", steps=PIPELINE.steps)


def _registry(own: MemoryStore, federation: MemoryStore) -> tuple[Registry, Registry]:
    """The same registry twice: on the stores, and with a pause before every call of them."""
    paused = cast(Store, PausingStore(federation))
    paused_own = paused if own is federation else cast(Store, PausingStore(own))
    shelves = Repositories("n", federation, own), Repositories("n", paused, paused_own)
    agreements = RememberedAgreements(shelves[0])
    plain, pausing = (
        build(repositories, WillingServices(), SystemClock(), agreements) for repositories in shelves
    )
    return plain, pausing


async def _prepared(*, two_stores: bool = False) -> tuple[Registry, Registry]:
    own = MemoryStore()
    plain, pausing = _registry(own, MemoryStore() if two_stores else own)
    await plain.tools.create(Tool(name="t", author="a", image="busybox"))
    await plain.datasets.create(Dataset(name="d", master="/d.git"))
    return plain, pausing


@pytest.mark.parametrize("kind", ["tools", "datasets"])
async def test_race_delete_record_and_create_pipeline(kind: str) -> None:
    winners = set()
    for turns in TURNS:
        plain, pausing = await _prepared()
        collection = pausing.tools if kind == "tools" else pausing.datasets
        name = kind[0]
        created, deleted = interleave(
            pausing.pipelines.create(PIPELINE), collection.delete(name, None), turns
        )
        pipeline = await plain.repositories.pipelines.get("p")
        records = plain.repositories.tools if kind == "tools" else plain.repositories.datasets
        record = await records.get(name)
        if pipeline:
            assert record, turns
            assert isinstance(deleted, StillReferenced)
        else:
            assert record is None
            assert isinstance(created, InvalidInput)
        winners.add(pipeline is None)
    assert winners == {True, False}


@pytest.mark.parametrize("two_stores", [False, True])
async def test_race_delete_pipeline_and_enrol(two_stores: bool) -> None:
    winners = set()
    for turns in LONG_TURNS:
        plain, pausing = await _prepared(two_stores=two_stores)
        await plain.pipelines.create(PIPELINE)
        renewal = pausing.enrolments.renew("p", EnrolmentRequest(), None)
        enrolled, deleted = interleave(renewal, pausing.pipelines.delete("p", None), turns)
        pipeline, enrolment = (
            await plain.repositories.pipelines.get("p"),
            await plain.repositories.enrolments.get("p"),
        )
        assert (pipeline is None) == (enrolment is None), turns
        assert isinstance(deleted, StillReferenced) == (enrolment is not None)
        assert isinstance(enrolled, NotFound) == (enrolment is None)
        winners.add(enrolment is None)
    assert winners == {True, False}


async def test_race_two_inits() -> None:
    for turns in LONG_TURNS[:150]:
        plain, one = await _prepared()
        paused = cast(Store, PausingStore(plain.repositories.own))
        repositories = Repositories("n", paused, paused)
        other = build(repositories, WillingServices(), SystemClock(), RememberedAgreements(repositories))
        answers = interleave(one.enrolments.init(INIT), other.enrolments.init(INIT), turns)
        assert sum(isinstance(answer, Conflict) for answer in answers) <= 1
        assert await plain.repositories.enrolments.get("p")
        stored = await plain.repositories.datasets.get("d")
        assert stored is not None
        assert stored.record.nodes == ["n"]


async def _make_schedule(repositories: Repositories) -> bool:
    """What the scheduler does: checks the enrolment, rewrites the guard."""
    enrolment = await repositories.enrolments.get("p")
    if enrolment is None:
        return False
    schedule = Schedule(cron="@daily", id="s", pipeline="p", created_at=enrolment.record.enrolled_at)
    checks = [Check(keys.enrolment("n", "p"), enrolment.revision), Check(keys.schedule("n", "s"), 0)]
    writes = [Put(keys.schedule("n", "s"), dump(schedule)), Put(keys.node_references("n"), b"")]
    return await repositories.own.transact(checks, writes) is not None


async def test_race_withdraw_and_schedule() -> None:
    winners = set()
    for turns in LONG_TURNS:
        plain, pausing = await _prepared()
        await plain.enrolments.init(INIT)
        interleave(_make_schedule(pausing.repositories), pausing.enrolments.withdraw("p", None), turns)
        enrolment, schedule = (
            await plain.repositories.enrolments.get("p"),
            await plain.repositories.schedules.get("s"),
        )
        assert (enrolment is None) == (schedule is None), turns
        stored = await plain.repositories.datasets.get("d")
        assert stored is not None
        assert stored.record.nodes == (["n"] if enrolment else [])
        winners.add(enrolment is None)
    assert winners == {True, False}


async def test_race_two_updates() -> None:
    for turns in TURNS:
        plain, pausing = await _prepared()
        revision = (await plain.tools.read("t")).revision
        tools = [Tool(name="t", author=author, image="busybox") for author in "xy"]
        one, other = (pausing.tools.update("t", tool, revision) for tool in tools)
        answers = interleave(one, other, turns)
        assert sum(isinstance(answer, MaoError) for answer in answers) == 1


async def test_race_remove_node_and_return() -> None:
    winners = set()
    for turns in TURNS:
        plain, pausing = await _prepared()
        revision = (await plain.datasets.read("d")).revision
        await plain.datasets.update("d", Dataset(name="d", master="/d.git", nodes=["far"]), revision)
        back = Member(name="far", version="1", started_at=SystemClock().now())

        async def come_back(repositories: Repositories = pausing.repositories, back: Member = back) -> int:
            """The order of what it writes is what matters: its record first, and then it is listed."""
            await repositories.members.create("far", back)
            return (await repositories.datasets.page()).items[0].record.nodes.count("far")

        listed, removed = interleave(come_back(), pausing.members.remove("far"), turns)
        if listed:
            assert isinstance(removed, Conflict), turns
        winners.add(bool(listed))
    assert winners == {True, False}
