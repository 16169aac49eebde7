"""A data manager with real git: what failed checks lead to, and what becomes of quarantined snapshots."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.checks.rules import Output, evaluate
from mao_datamgmt.checks.runner import CheckTask
from mao_datamgmt.datasets import quarantine
from mao_datamgmt.datasets.quarantine import Decision
from mao_datamgmt.provenance import read_step_record
from mao_git import Clone
from mao_shared import keys
from mao_shared.errors import Conflict, InvalidInput, NotFound
from mao_shared.models import Alarm, ControlMetric, Run, Series, StepRun
from mao_shared.models.check import Check, CheckResult
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore
from tests.support.git import file_at, git
from tests.support.waiting import eventually, eventually_answers

from .test_outages import DiesAt
from .world import BEGIN, NODE, PATIENCE, World, run_of, runs_on, step, working, writes

BRANCH = f"quarantine/{NODE}"
IN_A_CHILD = {"test_warn_publishes_and_is_told_in_run_commit_and_alarm"}
ROWS = "id\n1\n2\n3\n"
FEW = "id\n1\n"


@pytest.fixture(autouse=True)
def checks_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check in this process, since a child takes longer than the rest of a run, unless a test is about it."""

    def evaluate_here(task: CheckTask) -> list[CheckResult]:
        metrics = {metric.name: metric for metric in task.metrics}
        clone = Clone.open(task.repository)
        output = Output(clone, task.tree, task.base, metrics, task.points, task.moment)
        return [evaluate(check, output) for check in task.checks]

    if request.node.originalname not in IN_A_CHILD:
        monkeypatch.setattr("mao_datamgmt.steps.publish.run_checks", evaluate_here)


def enough(on_failure: str = "quarantine", name: str = "enough") -> Check:
    return Check.model_validate({"name": name, "file": "rows.csv", "at_least": 3, "on_failure": on_failure})


def checked_step(
    world: World, *checks: Check, metrics: tuple[ControlMetric, ...] = (), **changes: Any
) -> StepRun:
    one = step("collect", "data", world.master)
    spec = one.spec.model_copy(update={"checks": list(checks), "metrics": list(metrics), **changes})
    return one.model_copy(update={"spec": spec})


def checked_run(world: World, number: int, *checks: Check, **changes: Any) -> Run:
    return run_of(f"run-{number}", checked_step(world, *checks, **changes), after=number)


def record_of(repository: Path, commit: str) -> dict[str, Any]:
    record = read_step_record(git(repository, "show", "-s", "--format=%B", commit) + "\n")
    assert record is not None
    return record


def tip(repository: Path, branch: str = NODE) -> str:
    return git(repository, "rev-parse", branch)


async def quarantined(world: World, number: int, **files: str) -> StepRun:
    """Run a step whose output is quarantined, and end its run."""
    run = checked_run(world, number, enough())
    await world.whole(run, writes(**({"rows.csv": FEW} | files)))
    return await world.analysed(run.id)


async def published(world: World, number: int, **files: str) -> StepRun:
    run = checked_run(world, number, enough())
    await world.whole(run, writes(**({"rows.csv": ROWS} | files)))
    return await world.analysed(run.id)


async def alarms_of(world: World) -> list[Alarm]:
    return (await world.manager.alarms.list_(False, 100, None)).items


# the reactions


async def test_warn_publishes_and_is_told_in_run_commit_and_alarm(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        run = checked_run(world, 1, enough("warn"), Check(name="there", file="rows.csv", on_failure="block"))
        await world.whole(run, writes(**{"rows.csv": FEW}))
        done = await world.analysed(run.id)
        assert (done.phase, done.quarantine, done.error) == (StepPhase.SUCCEEDED, None, None)
        assert [(found.name, found.passed) for found in done.checks] == [("enough", False), ("there", True)]
        assert done.waiting == "published although a check failed: enough: 1 row, at least 3 are expected"
        assert done.snapshot == tip(world.master) == tip(world.master, "ground-truth")
        recorded = record_of(world.master, NODE)["checks"]
        assert [(found["name"], found["passed"]) for found in recorded] == [
            ("enough", False),
            ("there", True),
        ]
        [alarm] = await alarms_of(world)
        assert (alarm.kind, alarm.subject, alarm.run, alarm.value) == ("check", "enough", "run-1", 1)
        assert alarm.detail.endswith("at least 3 are expected; the output was published all the same.")


async def test_block_publishes_nothing_and_keeps_the_output(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        before = await published(world, 0)
        run = checked_run(world, 1, enough("block"), enough("quarantine", "also"), enough("warn", "too"))
        await world.whole(run, writes(**{"rows.csv": FEW, "more.txt": "x"}))
        await world.finish(run.id, RunPhase.FAILED)
        await world.until_analysed(run.id)
        done = (await world.get(run.id)).record.steps[0]
        assert done.phase is StepPhase.FAILED
        assert done.error is not None
        assert (done.error.code, done.error.fault) == ("check-failed", "tool")
        assert "enough: 1 row, at least 3 are expected; also: " in done.error.detail
        assert [found.passed for found in done.checks] == [False, False, False]
        assert (done.snapshot, done.quarantine) == (None, None)
        assert (world.workspace(run.id).data / "more.txt").read_text() == "x"
        assert tip(world.master) == before.snapshot
        assert git(world.master, "branch", "--list", BRANCH) == ""
        assert {alarm.subject for alarm in await alarms_of(world)} == {"enough", "also", "too"}
        assert all("nothing was published" in alarm.detail for alarm in await alarms_of(world))


async def test_quarantine_goes_to_a_branch_of_its_own_and_the_step_succeeds(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        before = await published(world, 0)
        done = await quarantined(world, 1, extra="x")
        assert (done.phase, done.snapshot, done.ground_truth, done.error) == (
            StepPhase.SUCCEEDED,
            None,
            None,
            None,
        )
        assert done.quarantine is not None
        assert (done.quarantine.branch, done.quarantine.state) == (BRANCH, "waiting")
        assert done.quarantine.commit == tip(world.master, BRANCH)
        assert done.waiting == "quarantined: enough: 1 row, at least 3 are expected"
        assert tip(world.master) == tip(world.master, "ground-truth") == before.snapshot
        assert file_at(world.master, f"{BRANCH}:rows.csv") == FEW.strip()
        assert record_of(world.master, BRANCH)["checks"][0]["on_failure"] == "quarantine"
        [listed] = (await world.manager.quarantine.list_("data", None, 10, None)).items
        assert (listed.files, listed.bytes) == (2, len(FEW) + 1)
        [alarm] = await alarms_of(world)
        assert f"maoctl dataset quarantine show data {done.quarantine.commit[:10]}" in (alarm.next or "")
        # the next run does not read it
        await world.begin(checked_run(world, 2, enough()))
        await world.phase("run-2", StepPhase.READY)
        assert (world.workspace("run-2").data / "rows.csv").read_text() == ROWS
        assert not (world.workspace("run-2").data / "extra").exists()


async def test_first_snapshot_of_a_dataset_can_be_quarantined_and_accepted(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await quarantined(world, 1)
        assert runs_on(world.master, BRANCH) == ["run-1"]
        await world.manager.quarantine.accept("data", "run-1", Decision("accepted"))
        assert file_at(world.master, "ground-truth:rows.csv") == FEW.strip()


async def test_checks_are_of_the_whole_output_also_of_unchanged_files(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        run = checked_run(world, 1, enough("block"), Check(name="same", max_decrease=0, on_failure="block"))
        done = await world.whole(run, writes(other="x"))
        assert (done.phase, [found.passed for found in done.checks]) == (StepPhase.SUCCEEDED, [True, True])
        assert done.waiting is None


async def test_metric_outside_its_band_has_one_alarm_and_no_point_until_accepted(tmp_path: Path) -> None:
    metric = ControlMetric(name="total", file="total.json", pointer="/total")
    band = Check(name="band", metric="total", on_failure="quarantine")
    async with working(tmp_path) as world:
        for number, total in enumerate([100, 101, 99, 100, 100, 101, 99, 300]):
            run = checked_run(world, number, band, metrics=(metric,))
            await world.whole(run, writes(**{"total.json": json.dumps({"total": total}), "n": str(number)}))
            await world.analysed(run.id)
        done = (await world.get("run-7")).record.steps[0]
        assert done.quarantined
        assert done.metrics == {}
        assert [alarm.kind for alarm in await alarms_of(world)] == ["check"]
        assert len((await series_of(world)).points) == 7
        await world.manager.quarantine.accept("data", "run-7", Decision("accepted"))
        await world.until_analysed("run-7")
        assert (await series_of(world)).points[-1].value == 300
        assert (await world.get("run-7")).record.steps[0].metrics == {"total": 300}
        assert [alarm.kind for alarm in await alarms_of(world)] == ["check"]


async def series_of(world: World) -> Series:
    stored = await world.manager.series.get("pipeline/collect/total")
    assert stored is not None
    return stored.record


# alarms: once per change of state


async def test_alarm_is_raised_once_counts_on_and_ends(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        for number, rows in enumerate([FEW, FEW, FEW]):
            done = await quarantined(world, number, **{"rows.csv": rows, "n": str(number)})
        [alarm] = await alarms_of(world)
        assert done.quarantine is not None
        assert alarm.next is not None
        assert alarm.next.endswith(f"quarantine show data {done.quarantine.commit[:10]}")
        assert (alarm.run, alarm.count, alarm.over) == ("run-0", 3, None)
        assert "failed 3 times in a row" in alarm.detail
        await published(world, 3)
        [alarm] = await alarms_of(world)
        assert alarm.over is not None
        await quarantined(world, 4, n="4")
        assert {(alarm.run, alarm.over is None) for alarm in await alarms_of(world)} == {
            ("run-0", False),
            ("run-4", True),
        }


@pytest.mark.parametrize("left", [[], [enough(name="other")]])
async def test_alarm_of_a_check_that_the_step_has_no_longer_ends(tmp_path: Path, left: list[Check]) -> None:
    async with working(tmp_path) as world:
        await quarantined(world, 0)
        run = checked_run(world, 1, *left)
        await world.whole(run, writes(**{"rows.csv": ROWS}))
        await world.analysed(run.id)
        [alarm] = await alarms_of(world)
        assert alarm.over is not None


# decisions


async def test_accepted_later_it_is_replayed_on_what_was_published_since(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0, **{"a.txt": "0"})
        await quarantined(world, 1, **{"b.txt": "1"})
        await published(world, 2, **{"c.txt": "2"})
        found = await world.manager.quarantine.list_("data", "waiting", 10, None)
        [waiting] = found.items
        assert (waiting.run, waiting.step, waiting.pipeline, waiting.pushed) == (
            "run-1",
            "collect",
            "pipeline",
            True,
        )
        decision = Decision("accepted", "Ada", "the source was down")
        accepted = await world.manager.quarantine.accept("data", waiting.commit[:10], decision)
        assert (accepted.state, accepted.by, accepted.note) == ("accepted", "Ada", "the source was down")
        assert runs_on(world.master) == ["run-1", "run-2", "run-0"]
        assert accepted.accepted_as == tip(world.master) == tip(world.master, "ground-truth")
        assert file_at(world.master, f"{NODE}:rows.csv") == FEW.strip()
        assert [file_at(world.master, f"{NODE}:{name}.txt") for name in "abc"] == ["0", "1", "2"]
        record = record_of(world.master, NODE)
        assert (record["run"], record["quarantine"]["commit"]) == ("run-1", waiting.commit)
        assert record["checks"][0]["passed"] is False
        done = (await world.get("run-1")).record.steps[0]
        assert (done.snapshot, done.pushed, done.quarantined) == (tip(world.master), True, False)
        assert done.quarantine is not None
        assert (done.quarantine.state, done.quarantine.by) == ("accepted", "Ada")
        again = await world.manager.quarantine.accept("data", "run-1", decision)
        assert again.accepted_as == accepted.accepted_as
        assert len(runs_on(world.master)) == 3
        with pytest.raises(Conflict, match="was accepted at") as refused:
            await world.manager.quarantine.discard("data", "run-1", Decision("discarded"))
        assert refused.value.code == "quarantine-decided"


async def test_discarded_it_stays_in_the_branch_and_nothing_is_published(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        before = await published(world, 0)
        done = await quarantined(world, 1)
        assert done.quarantine is not None
        discarded = await world.manager.quarantine.discard("data", "run-1", Decision("discarded", "Ada"))
        assert (discarded.state, discarded.pushed) == ("discarded", True)
        assert tip(world.master) == before.snapshot
        assert file_at(world.master, f"{done.quarantine.commit}:rows.csv") == FEW.strip()
        git(world.master, "merge-base", "--is-ancestor", done.quarantine.commit, BRANCH)
        after = (await world.get("run-1")).record.steps[0]
        assert (after.snapshot, after.waiting) == (None, "its quarantined output was discarded by Ada")
        assert (await world.manager.quarantine.list_("data", "waiting", 10, None)).items == []
        with pytest.raises(Conflict, match="was discarded"):
            await world.manager.quarantine.accept("data", "run-1", Decision("accepted"))
        assert tip(world.master) == before.snapshot


async def test_several_are_decided_in_any_order(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        for number in (1, 2, 3):
            await quarantined(world, number, **{f"{number}.txt": "x"})
        desk = world.manager.quarantine
        assert (await world.manager.status("data")).quarantined == 3
        await desk.accept("data", "run-2", Decision("accepted"))
        assert (await world.manager.status("data")).quarantined == 2
        await desk.discard("data", "run-3", Decision("discarded"))
        assert (await world.manager.status("data")).quarantined == 1
        listed = (await desk.list_("data", None, 10, None)).items
        assert [(one.run, one.state) for one in listed] == [
            ("run-3", "discarded"),
            ("run-2", "accepted"),
            ("run-1", "waiting"),
        ]
        page = await desk.list_("data", None, 2, None)
        assert [one.run for one in (await desk.list_("data", None, 2, page.cursor)).items] == ["run-1"]
        assert file_at(world.master, f"{NODE}:2.txt") == "x"
        assert git(world.master, "ls-tree", "--name-only", NODE).split() == ["2.txt", "rows.csv"]
        assert "missing" not in git(world.master, "fsck", "--strict", "--full")


async def test_accept_that_conflicts_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        await quarantined(world, 1)
        after = await published(world, 2, **{"rows.csv": "id\n7\n8\n9\n"})
        with pytest.raises(Conflict, match=r"both changed rows\.csv") as refused:
            await world.manager.quarantine.accept("data", "run-1", Decision("accepted"))
        assert refused.value.code == "quarantine-conflict"
        assert tip(world.master) == after.snapshot
        [waiting] = (await world.manager.quarantine.list_("data", None, 10, None)).items
        assert waiting.state == "waiting"


async def test_names_of_snapshots_that_are_unknown_or_ambiguous(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        first = step("collect", "data", world.master)
        spec = first.spec.model_copy(update={"checks": [enough()]})
        two = [
            first.model_copy(update={"spec": spec.model_copy(update={"name": name})})
            for name in ("one", "two")
        ]
        await world.begin(run_of("run-1", *two))
        for index in (0, 1):
            if index:
                await world.change(
                    "run-1", lambda run: run.with_step(1, run.steps[1].move(StepPhase.PREPARING, BEGIN))
                )
            await world.run_tool("run-1", writes(**{"rows.csv": FEW, "n": str(index)}), index)
            await world.phase("run-1", StepPhase.SUCCEEDED, index=index)
        with pytest.raises(InvalidInput, match="stands for 2") as ambiguous:
            await world.manager.quarantine.get("data", "run-1")
        assert ambiguous.value.code == "quarantine-ambiguous"
        with pytest.raises(NotFound) as absent:
            await world.manager.quarantine.get("data", "abcdef0")
        assert absent.value.code == "quarantine-not-found"
        with pytest.raises(NotFound):
            await world.manager.quarantine.list_("none", None, 10, None)


# later steps of the run


@pytest.mark.parametrize(
    ("manner", "ends"), [("skip", StepPhase.SKIPPED), ("own", StepPhase.READY), ("last", StepPhase.READY)]
)
async def test_step_that_reads_a_quarantined_output(tmp_path: Path, manner: str, ends: StepPhase) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        reader = step("sum", "sums", world.master, ("data", str(world.master), "ground-truth"))
        spec = reader.spec.model_copy(update={"on_late_truth": manner})
        run = run_of(
            "run-1", checked_step(world, enough()), reader.model_copy(update={"spec": spec}), after=1
        )
        await world.begin(run)
        await world.run_tool("run-1", writes(**{"rows.csv": FEW}))
        await world.phase("run-1", StepPhase.SUCCEEDED)
        await world.change(
            "run-1", lambda run: run.with_step(1, run.steps[1].move(StepPhase.PREPARING, BEGIN))
        )
        second = await world.phase("run-1", ends, StepPhase.FAILED, index=1)
        assert second.phase is ends
        if ends is StepPhase.SKIPPED:
            assert second.waiting == "the output of step collect, which it reads, is quarantined"
        else:
            assert (world.workspace("run-1", 1).input / "rows.csv").read_text() == ROWS


# the remote is away, clones break


async def test_remote_away_it_is_pushed_later_with_its_decision(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        hidden = world.master.rename(tmp_path / "hidden.git")
        done = await quarantined(world, 1)
        assert done.quarantined
        [waiting] = (await world.manager.quarantine.list_("data", None, 10, None)).items
        assert not waiting.pushed
        accepted = await world.manager.quarantine.accept("data", "run-1", Decision("accepted"))
        assert (accepted.state, accepted.pushed) == ("accepted", False)

        async def all_wait() -> bool:  # ground truth follows after the node's branch
            status = await world.manager.status("data")
            waiting = {one.name: one.unpushed for one in status.branches if one.here}
            return waiting == {NODE: 1, BRANCH: 2, "ground-truth": 1}

        await eventually_answers(all_wait)
        assert not (await world.get("run-1")).record.steps[0].pushed
        hidden.rename(world.master)
        await world.manager.pusher.push_now("data")
        assert runs_on(world.master) == ["run-1", "run-0"]
        assert (await world.manager.quarantine.get("data", "run-1")).pushed
        done = await world.phase("run-1", StepPhase.SUCCEEDED)
        await world.until("run-1", lambda run: run.steps[0].pushed)


async def test_refused_quarantine_branch_does_not_hold_the_others_back(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await published(world, 0)
        git(world.master, "branch", "quarantine", NODE)  # so that no branch fits below it
        done = await quarantined(world, 1)
        assert done.quarantined
        after = await published(world, 2, **{"b.txt": "2"})
        assert tip(world.master) == after.snapshot == tip(world.master, "ground-truth")
        [waiting] = (await world.manager.quarantine.list_("data", None, 10, None)).items
        assert (waiting.run, waiting.pushed) == ("run-1", False)
        git(world.master, "branch", "-D", "quarantine")
        await world.manager.pusher.push_now("data")
        assert (await world.manager.quarantine.get("data", "run-1")).pushed


# kills


class Kill(Exception):
    """The process ends here."""


REACHED = [
    ("write_tree", True),
    ("commit", False),
    ("commit", True),
    ("move_branch", False),
    ("move_branch", True),
    ("push", False),
    ("push", True),
]


@pytest.mark.parametrize(("name", "after"), REACHED)
async def test_killed_while_quarantining_it_is_there_once(tmp_path: Path, name: str, after: bool) -> None:
    store, patch = MemoryStore(), pytest.MonkeyPatch()
    async with working(tmp_path, store) as world:
        await published(world, 0)
        run = checked_run(world, 1, enough())
        await world.begin(run)
        await world.phase(run.id, StepPhase.READY)
        dies = DiesAt(patch, name, after=after)
        await world.run_tool(run.id, writes(**{"rows.csv": FEW}))
        await dies.wait()
    patch.undo()
    async with working(tmp_path, store) as world:
        done = await world.phase("run-1", StepPhase.SUCCEEDED, StepPhase.FAILED)
        assert done.quarantined, done.error
        assert [found.passed for found in done.checks] == [False]
        await eventually(lambda: runs_on(world.master, BRANCH)[:1] == ["run-1"], PATIENCE)
        assert runs_on(world.master, BRANCH).count("run-1") == 1
        assert "run-1" not in runs_on(world.master)


@pytest.mark.parametrize("decide", ["accept", "discard"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_killed_while_deciding_it_is_finished_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decide: str, number: int
) -> None:
    """`number`: before which of the writes to git the process dies; a discard has two, an acceptance four."""
    store, decision = MemoryStore(), Decision("accepted" if decide == "accept" else "discarded")
    async with working(tmp_path, store) as world:
        await published(world, 0)
        await quarantined(world, 1)
        context = world.manager.context
        call = getattr(quarantine, decide)
        writes_left = [number]

        def mortal(method: Any) -> Any:
            def dies(*args: Any, **kwargs: Any) -> Any:
                writes_left[0] -= 1
                if not writes_left[0]:
                    raise Kill
                return method(*args, **kwargs)

            return dies

        with monkeypatch.context() as patch:
            for name in ("commit", "move_branch"):
                patch.setattr(Clone, name, mortal(getattr(Clone, name)))
            try:
                await asyncio.to_thread(call, context, "data", "run-1", decision)
            except Kill:
                assert writes_left == [0]
    async with working(tmp_path, store) as world:
        await asyncio.wait_for(world.manager.quarantine.run(), PATIENCE)
        [found] = (await world.manager.quarantine.list_("data", None, 10, None)).items
        if decide == "accept" and number > 2:
            assert found.state == "accepted"  # the commit was made, so it is finished without being asked
            await world.until("run-1", lambda run: run.steps[0].snapshot == found.accepted_as)
        again = await getattr(world.manager.quarantine, decide)("data", "run-1", decision)
        assert again.state == f"{decide}ed"
        accepted = decide == "accept"
        assert runs_on(world.master) == (["run-1", "run-0"] if accepted else ["run-0"])
        done = (await world.get("run-1")).record.steps[0]
        assert (done.snapshot is not None) is accepted
        assert done.quarantine is not None
        assert done.quarantine.state == again.state
        log = git(world.master, "log", "--format=%s", BRANCH)
        assert len([line for line in log.splitlines() if line.startswith(decide.capitalize())]) == 1


async def test_decision_is_told_to_a_run_whose_document_missed_it(tmp_path: Path) -> None:
    store = MemoryStore()
    async with working(tmp_path, store) as world:
        await published(world, 0)
        await quarantined(world, 1)
        decision = Decision("accepted", "Ada")
        await asyncio.to_thread(quarantine.accept, world.manager.context, "data", "run-1", decision)
        assert (
            (await world.get("run-1")).record.steps[0].quarantined
        )  # killed before the document was written
    async with working(tmp_path, store) as world:
        await asyncio.wait_for(world.manager.quarantine.run(), PATIENCE)
        done = (await world.get("run-1")).record.steps[0]
        assert (done.quarantined, done.snapshot) == (False, tip(world.manager.context.data.clone("data")))
        assert (await store.get(keys.run(NODE, "run-1"))) is not None
