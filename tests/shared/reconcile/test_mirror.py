"""A mirror matches its store, also after gaps, outages and own writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.support.jobs import SECONDS, Job, JobBench
from tests.support.stores import UnavailableStore
from tests.support.waiting import eventually


@pytest.fixture
async def bench() -> AsyncIterator[JobBench]:
    bench = JobBench()
    yield bench
    await bench.stop()
    await bench.store.close()


# --- mirror -----------------------------------------------------------------------------------------------


async def test_mirror_lists_then_follows(bench: JobBench) -> None:
    await bench.make("a", "b")
    await bench.start_mirror()
    assert bench.names() == {"a", "b"}
    await bench.make("c")
    revision = await bench.change("a", Job(n=7))
    await bench.jobs.delete("b")
    await eventually(lambda: bench.names() == {"a", "c"})
    kept = bench.mirror.get("a")
    assert kept is not None
    assert (kept.record.n, kept.revision) == (7, revision)
    assert Counter(bench.told) == {"a": 2, "b": 2, "c": 1}


async def test_mirror_lists_more_than_one_page(bench: JobBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mao_shared.reconcile.mirror.LIST_PAGE", 2)
    await bench.make("a", "b", "c", "d", "e")
    await bench.start_mirror()
    assert bench.names() == set("abcde")


async def test_mirror_drops_records_no_longer_selected(bench: JobBench) -> None:
    await bench.make("a", "b")
    await bench.change("b", Job(over=True))
    await bench.start_mirror()
    assert bench.names() == {"a"}
    assert bench.told == ["a"]
    await bench.change("a", Job(over=True))
    await eventually(lambda: bench.names() == set())
    assert bench.told == ["a", "a"]


async def test_mirror_after_a_gap_it_lists_again_and_drops_what_vanished(bench: JobBench) -> None:
    await bench.make("stays", "goes", "changes", "ends")
    await bench.start_mirror()
    bench.told.clear()
    bench.gate.open.clear()
    await bench.jobs.delete("goes")
    await bench.change("changes", Job(n=2))
    await bench.change("ends", Job(over=True))
    await bench.make("new")
    bench.gate.gap = True
    bench.gate.open.set()
    await eventually(lambda: bench.names() == {"stays", "changes", "new"})
    changed = bench.mirror.get("changes")
    assert changed is not None
    assert changed.record.n == 2
    assert sorted(bench.told) == ["changes", "ends", "goes", "new"]


async def test_mirror_unreadable_record_is_passed_over(bench: JobBench) -> None:
    await bench.make("a", "z")
    await bench.store.create("/jobs/broken", b"{not json")
    await bench.store.create("/jobs/newer", b'{"n": "of a later version"}')
    await bench.start_mirror()
    await bench.store.create("/jobs/later", b"[]")
    await bench.make("b")
    await eventually(lambda: bench.names() == {"a", "b", "z"})


async def test_mirror_logs_record_faults_without_values(
    bench: JobBench, capsys: pytest.CaptureFixture[str]
) -> None:
    await bench.store.create("/jobs/newer", b'{"n": "hunter2"}')
    await bench.start_mirror()
    logged = capsys.readouterr().err
    assert "record.unreadable" in logged
    assert "hunter2" not in logged


async def test_mirror_record_that_becomes_unreadable_stays_as_it_was(bench: JobBench) -> None:
    revision = await bench.make("a")
    await bench.start_mirror()
    await bench.store.replace("/jobs/a", b"{}}", revision)
    await bench.caught_up()
    kept = bench.mirror.get("a")
    assert kept is not None
    assert kept.revision == revision


async def test_mirror_store_that_is_away_at_the_start_is_waited_for(bench: JobBench) -> None:
    await bench.make("a")
    bench.store.away = True
    bench.tasks.append(asyncio.create_task(bench.mirror.run()))
    calls = bench.store.calls
    await eventually(lambda: bench.store.calls > calls + 2)
    assert not bench.mirror.synced.is_set()
    bench.store.away = False
    await asyncio.wait_for(bench.mirror.synced.wait(), SECONDS)
    assert bench.names() == {"a"}


async def test_mirror_follows_restored_store(bench: JobBench) -> None:
    """After a reset, the same revision does not imply the same content."""
    before = await bench.make("a")
    await bench.make("b", "c", "d", "e")
    await bench.start_mirror()
    backup = UnavailableStore()
    assert await backup.create("/jobs/a", b'{"n": 5}') == before
    await backup.create("/jobs/f", b"{}")
    bench.jobs.store = backup
    bench.store.list, bench.store.watch = backup.list, backup.watch  # type: ignore[method-assign]
    bench.gate.gap = True
    await bench.store.create("/jobs/x", b"{}")  # wakes the old store's watch, which ends with the gap
    await eventually(lambda: bench.names() == {"a", "f"})
    kept = bench.mirror.get("a")
    assert kept is not None
    assert kept.record.n == 5
    await bench.make("later")
    await eventually(lambda: "later" in bench.names())
    await backup.close()


# --- own writes -------------------------------------------------------------------------------------------


async def test_mirror_own_write_is_there_at_once_and_its_echo_is_not_told(bench: JobBench) -> None:
    await bench.make("a")
    await bench.start_mirror()
    bench.told.clear()
    bench.gate.open.clear()
    revision = await bench.change("a", Job(n=1))
    bench.mirror.note("a", Job(n=1), revision)
    kept = bench.mirror.get("a")
    assert kept is not None
    assert kept.record.n == 1
    bench.gate.open.set()
    await bench.caught_up()
    assert bench.told.count("a") == 1


async def test_mirror_late_note_does_not_revive_a_deleted_record(bench: JobBench) -> None:
    await bench.make("a")
    await bench.start_mirror()
    revision = await bench.change("a", Job(n=1))
    await bench.jobs.delete("a")
    await eventually(lambda: bench.names() == set())
    bench.mirror.note("a", Job(n=1), revision)
    assert bench.mirror.get("a") is None


async def test_mirror_late_note_does_not_hide_a_newer_record(bench: JobBench) -> None:
    await bench.make("a")
    await bench.start_mirror()
    mine = await bench.change("a", Job(n=1))
    await bench.change("a", Job(n=2))
    await bench.caught_up()
    bench.mirror.note("a", Job(n=1), mine)
    kept = bench.mirror.get("a")
    assert kept is not None
    assert kept.record.n == 2


async def test_mirror_notes_out_of_order_leave_the_newest(bench: JobBench) -> None:
    await bench.make("a")
    await bench.start_mirror()
    bench.gate.open.clear()
    one = await bench.change("a", Job(n=1))
    two = await bench.change("a", Job(over=True))
    bench.mirror.note("a", Job(over=True), two)
    bench.mirror.note("a", Job(n=1), one)
    assert bench.mirror.get("a") is None
    bench.gate.open.set()
    await bench.caught_up()
    assert bench.mirror.get("a") is None
    assert bench.told.count("a") == 2  # the listing and the note: no older version came by


async def test_mirror_earlier_deletion_does_not_drop_a_noted_record(bench: JobBench) -> None:
    await bench.make("a")
    await bench.start_mirror()
    bench.gate.open.clear()
    await bench.jobs.delete("a")
    revision = await bench.make("a")
    bench.mirror.note("a", Job(), revision)
    told = len(bench.told)
    bench.gate.open.set()
    await bench.caught_up()
    assert "a" in bench.names()
    assert "a" not in bench.told[told:]


async def test_mirror_listing_that_began_earlier_does_not_drop_a_noted_record(bench: JobBench) -> None:
    """The note arrives between two pages of a listing whose revision is older."""
    await bench.make("a", "b")
    plain, noted = bench.store.list, False

    async def list_and_note(prefix: str, **options: object) -> object:
        nonlocal noted
        page = await plain(prefix, **options)  # type: ignore[arg-type]
        if not noted:
            noted = True
            bench.mirror.note("new", Job(), await bench.make("new"))
            bench.mirror.note("a", Job(n=3), await bench.change("a", Job(n=3)))
        return page

    bench.store.list = list_and_note  # type: ignore[method-assign, assignment]
    bench.gate.open.clear()
    await bench.start_mirror()
    kept = bench.mirror.get("a")
    assert kept is not None
    assert kept.record.n == 3
    assert bench.names() == {"a", "b", "new"}
