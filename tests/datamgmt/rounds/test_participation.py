"""A node's declared datasets follow its own enrolments, in any federation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mao_datamgmt.rounds.participation import ParticipationPublisher
from mao_datamgmt.rounds.peer_records import PeerRecords, Voters
from mao_datamgmt.rounds.view import RoundIndex
from mao_shared import keys
from mao_shared.models import DatasetRef, Enrolment, Participation, ResolvedStep, Round
from mao_shared.reconcile import Mirror, background
from mao_shared.store import Records, Store
from mao_shared.store.records import dump
from tests.datamgmt.world import IMAGE
from tests.shared.federation.world import NODE, World
from tests.support.waiting import eventually, eventually_answers

from .federation import tick

DATA = keys.part(NODE, "data")


async def enrol(world: World, pipeline: str, *datasets: str, at: int = 0) -> None:
    steps = [
        ResolvedStep(
            name=f"s{number}", tool="t", image=IMAGE, output=DatasetRef(name=name, master="/m", branch=NODE)
        )
        for number, name in enumerate(datasets)
    ]
    record = Enrolment(pipeline=pipeline, node=NODE, steps=steps, pipeline_revision=1, enrolled_at=tick(at))
    await Records(world.own, keys.enrolments_prefix(NODE), Enrolment).create(pipeline, record)


async def withdraw(world: World, pipeline: str) -> None:
    await world.own.delete(keys.enrolment(NODE, pipeline))


async def said(store: Store) -> list[str]:
    return [keys.last_part(entry.key) for entry in (await store.list(keys.parts_prefix(NODE))).entries]


async def until_said(store: Store, *datasets: str) -> None:
    async def holds() -> bool:
        return await said(store) == list(datasets)

    await eventually_answers(holds)


@asynccontextmanager
async def saying(world: World) -> AsyncIterator[ParticipationPublisher]:
    """Run the data manager's participation with its store, as in the app."""
    voters = Voters(world.store, PeerRecords(world.store))
    rounds: Mirror[Round] = Mirror(Records(world.store, keys.all_rounds(), Round))
    parts = ParticipationPublisher(NODE, world.own, voters, RoundIndex(rounds))
    runs = (voters.peer_records.mirror.run(), voters.members.run(), parts.enrolments.run(), parts.run())
    failed: list[None] = []
    async with background(*runs, on_failure=lambda: failed.append(None)):
        yield parts
    assert not failed


@asynccontextmanager
async def node(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    async with background(made.store.run()):
        assert await made.store.alone()
        yield made
    await made.store.close()


async def test_participation_follows_enrolments(tmp_path: Path) -> None:
    async with node(tmp_path) as world, saying(world):
        await enrol(world, "p", "data", "more", "data")
        await until_said(world.own, "data", "more")
        await enrol(world, "q", "data")
        await withdraw(world, "p")
        await until_said(world.own, "data")
        await withdraw(world, "q")
        await until_said(world.own)


async def test_participation_since_first_enrolment(tmp_path: Path) -> None:
    async with node(tmp_path) as world:
        await enrol(world, "late", "data", at=2)
        await enrol(world, "early", "data", at=1)
        async with saying(world):
            await until_said(world.own, "data")
            entry = await world.own.get(DATA)
            assert entry is not None
            assert Participation.model_validate_json(entry.value) == Participation(
                dataset="data", since=tick(1)
            )


async def test_participation_changes_while_down(tmp_path: Path) -> None:
    async with node(tmp_path) as world:
        await enrol(world, "p", "data")
        async with saying(world):
            await until_said(world.own, "data")
        await withdraw(world, "p")
        await enrol(world, "q", "other")
        async with saying(world):
            await until_said(world.own, "other")


async def test_participation_unreadable_is_rewritten(tmp_path: Path) -> None:
    async with node(tmp_path) as world:
        await world.own.create(DATA, b"{")
        await enrol(world, "p", "data")
        async with saying(world):
            await _readable(world.own)


async def test_participation_removed_is_republished(tmp_path: Path) -> None:
    async with node(tmp_path) as world, saying(world):
        await enrol(world, "p", "data")
        await until_said(world.own, "data")
        await world.own.delete(DATA)
        await until_said(world.own, "data")


async def test_participation_on_join_and_leave(tmp_path: Path) -> None:
    async with node(tmp_path) as world, saying(world):
        await world.there.create(
            keys.part(NODE, "forgotten"), dump(Participation(dataset="forgotten", since=tick(0)))
        )
        other = keys.part("other", "data")
        await world.there.create(other, dump(Participation(dataset="data", since=tick(0))))
        await enrol(world, "p", "data")
        await until_said(world.own, "data")
        await world.join()
        await until_said(world.there, "data")
        await withdraw(world, "p")
        await enrol(world, "q", "more")
        await until_said(world.there, "more")
        assert await said(world.own) == ["data"]
        await world.leave()
        await until_said(world.own, "more")
        assert await world.there.get(other) is not None


async def test_participation_federation_away_and_back(tmp_path: Path) -> None:
    async with node(tmp_path) as world, saying(world) as parts:
        await world.join()
        await enrol(world, "p", "data")
        await until_said(world.there, "data")
        world.there.away = True
        await withdraw(world, "p")
        await enrol(world, "q", "more")
        await eventually(lambda: [name for name, _ in parts.enrolments.items()] == ["q"])
        world.there.away = False
        await until_said(world.there, "more")


async def test_participation_joined_while_federation_is_away(tmp_path: Path) -> None:
    async with node(tmp_path) as world, saying(world):
        await enrol(world, "p", "data")
        await until_said(world.own, "data")
        world.there.away = True
        await world.join()
        world.there.away = False
        await until_said(world.there, "data")


async def _readable(store: Store) -> None:
    async def holds() -> bool:
        entry = await store.get(DATA)
        return entry is not None and entry.value.startswith(b'{"dataset":"data"')

    await eventually_answers(holds)
