"""What goes from the federation's store with time, and what stays."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mao_datamgmt.rounds.retain import Retention, old_rounds, said_is_old
from mao_shared import keys
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes
from tests.support.waiting import eventually

from .federation import federation
from .test_decide import ID, TICK, a_round

DAY = timedelta(days=1)


def test_what_was_said_goes_a_day_after_the_round() -> None:
    done = a_round(phase="decided", ended_at=TICK)
    assert not said_is_old(ID, a_round(), TICK + 100 * DAY)
    assert not said_is_old(ID, done, TICK + DAY)
    assert said_is_old(ID, done, TICK + 1.1 * DAY)
    assert not said_is_old(ID, None, TICK + 30 * DAY)
    assert said_is_old(ID, None, TICK + 32 * DAY)


def test_ended_rounds_go_by_age_and_number_but_never_the_last_decided_one() -> None:
    rounds = [
        a_round(id=f"r{day}", tick=TICK + day * DAY, phase="decided" if day < 3 else "undecided")
        for day in range(6)
    ]
    live = a_round(id="live", tick=TICK - 100 * DAY)
    everything = [*rounds, live]
    assert old_rounds(everything, TICK - DAY, 100) == []
    assert sorted(old_rounds(everything, TICK + 5 * DAY, 100)) == ["data/r0", "data/r1", "data/r3", "data/r4"]
    assert sorted(old_rounds(everything, TICK - DAY, 2)) == ["data/r0", "data/r1", "data/r3"]


async def test_a_round_stays_as_long_as_anybody_speaks_of_it(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore()) as fed:
        for number in range(2):
            await fed.collect(number, [writes(a=str(number))] * 3)
            await fed.ended(number)
        manager = fed["a"].manager
        assert manager is not None
        of = manager.rounds
        retention = Retention(manager.context, of.mirror, of.heard, timedelta(0), 1)
        first = (await fed.rounds())[0]
        name = f"data/{first.id}"
        await retention.once()
        assert len(await fed.rounds()) == 2
        for node in fed.nodes:
            await fed.store.delete(keys.announcement(node.name, "data", first.id))
            await fed.store.delete(keys.attestation(node.name, "data", first.id))
        await eventually(lambda: not of.heard.speaks_of(name))
        await retention.once()
        assert [each.id for each in await fed.rounds()] != [first.id]
        assert len(await fed.rounds()) == 1
