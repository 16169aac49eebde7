"""Steps that read ground truth wait for its round, and follow the pipeline's policy when it is late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.rounds.input_gate import READY, InputReadiness, input_readiness
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_shared.errors import StoreUnavailable
from mao_shared.models import DatasetRef, Round, Run, StepRun, VoteDefinition, round_id
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import writes
from tests.support.git import bare_repository
from tests.support.waiting import eventually, eventually_answers

from .federation import PIPELINE, STEP, Federation, Node, federation, tick

DEADLINE, GRACE = timedelta(minutes=10), timedelta(seconds=30)


def reading(node: Node, **spec: Any) -> StepRun:
    """Return a second step, which reads the ground truth of what the first one wrote."""
    second = node.step("sums", "sum")
    source = DatasetRef(name="data", master=str(node.master), branch="ground-truth")
    output = DatasetRef(name="sums", master=str(node.root.parent / "sums.git"), branch=node.name)
    fields = {"input": source, "output": output, **spec}
    return StepRun(spec=second.spec.model_copy(update=fields))


async def both(node: Node, number: int, text: str, **spec: Any) -> str:
    """Return a run whose first step has ended and whose second is to be prepared."""
    run_id = await node.begin(number, node.step(), reading(node, **spec))
    await node.play(run_id, writes(a=text))

    def hand_over(run: Run) -> Run:
        return run.with_step(1, run.steps[1].move(StepPhase.PREPARING, tick(number)))

    await node.change(run_id, hand_over)
    return run_id


def input_of(node: Node, run_id: str) -> str:
    assert node.manager is not None
    return (node.manager.context.data.workspace(run_id, 1, 1).input / "a").read_text()


async def test_input_gate_reads_ground_truth_of_own_tick(tmp_path: Path) -> None:
    bare_repository(tmp_path / "sums.git")
    async with federation(tmp_path, MemoryStore()) as fed:
        liar = await both(fed["c"], 0, "lie")
        waits = await fed["c"].until(liar, lambda run: run.steps[1].waiting is not None)
        assert "waits for round" in str(waits.steps[1].waiting)
        await fed["a"].collect(0, writes(a="truth"))
        await fed["b"].collect(0, writes(a="truth"))
        await fed["c"].until(liar, lambda run: run.steps[1].phase is StepPhase.READY)
        assert input_of(fed["c"], liar) == "truth"


async def _undecided(fed: Federation, **spec: Any) -> tuple[Node, str]:
    await fed.collect(0, [writes(a="old")] * 3)
    await fed.ended(0)
    node = fed["a"]
    return node, await both(node, 1, "own", **spec)


async def test_input_gate_skips_with_reason_and_alarm(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}, round_grace=1) as fed:
        node, run_id = await _undecided(fed)
        run = await node.until(run_id, lambda run: run.steps[1].phase is StepPhase.SKIPPED)
        assert "1 of 3 nodes submitted a snapshot" in str(run.steps[1].waiting)

        async def alarmed() -> bool:
            return f"{run_id}.sum.skipped" in [alarm.id for alarm in await node.alarms()]

        await eventually_answers(alarmed)
        assert run.phase is RunPhase.RUNNING


LATE = [("own", "own", "node-a"), ("last", "old", "ground-truth")]


@pytest.mark.parametrize(("says", "reads", "branch"), LATE)
async def test_input_gate_on_late_truth(tmp_path: Path, says: str, reads: str, branch: str) -> None:
    bare_repository(tmp_path / "sums.git")
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}, round_grace=1) as fed:
        node, run_id = await _undecided(fed, on_late_truth=says)
        run = await node.until(run_id, lambda run: run.steps[1].phase is StepPhase.READY)
        assert input_of(node, run_id) == reads
        source = run.steps[1].spec.input
        assert source is not None
        assert source.branch == branch


async def test_input_gate_wait_ends_while_federation_is_away(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), vote={"deadline": 1}, round_grace=1) as fed:
        await fed.collect(0, [writes(a="old")] * 3)
        await fed.ended(0)
        before = await both(fed["a"], 1, "own")
        await fed["a"].until(before, lambda run: run.steps[1].waiting is not None)
        fed["a"].link.cut()
        run_id = await both(fed["a"], 2, "own")
        run = await fed["a"].until(run_id, lambda run: run.steps[1].phase is StepPhase.SKIPPED)
        assert "not open yet" in str(run.steps[1].waiting)


# pure


def run_at(first: StepPhase = StepPhase.SUCCEEDED, minutes: int = 0) -> Run:
    node = Node.__new__(Node)
    node.name, node.root, node.master = "node-a", Path("/x/node-a"), Path("/x/master")
    done = node.step().model_copy(update={"phase": first, "times": {first: tick(0)}})
    steps = [done, reading(node).move(StepPhase.PREPARING, tick(0))]
    return Run(
        id="run", pipeline=PIPELINE, node="node-a", trigger="schedule", created_at=tick(0), steps=steps
    ).model_copy(update={"scheduled_for": tick(minutes)})


def of(phase: str, name: str = STEP, **changes: Any) -> Round:
    fields = {
        "opened_at": tick(0),
        "deadline": tick(10),
        "opened_by": "a",
        "nodes": ["a"],
        "definition": VoteDefinition(deadline=DEADLINE.total_seconds()),
    }
    place = {"dataset": "data", "pipeline": PIPELINE, "step": name, "tick": tick(0), "phase": phase}
    return Round(id=round_id(tick(0), PIPELINE, name), **{**fields, **place, **changes})


@pytest.mark.parametrize(
    ("run", "known", "after", "says"),
    [
        (run_at(), [], 0, "wait"),
        (run_at(), [], 11, "late"),
        (run_at(), [of("open")], 10, "wait"),
        (run_at(), [of("open")], 11, "late"),
        (run_at(), [of("closed", closed_at=tick(10))], 20, "wait"),
        (run_at(), [of("closed", closed_at=tick(10))], 21, "late"),
        (run_at(), [of("closed", closed_at=tick(2))], 12, "wait"),
        (run_at(), [of("closed", closed_at=tick(2))], 13, "late"),
        (run_at(), [of("decided")], 99, "go"),
        (run_at(), [of("undecided", reason="few")], 0, "late"),
        (run_at(), [of("decided"), of("open", "other")], 0, "wait"),
        (run_at(StepPhase.SKIPPED), [of("decided")], 0, "late"),
        (run_at(minutes=5), [of("open")], 99, "late"),
    ],
)
def test_input_readiness(run: Run, known: list[Round], after: int, says: str) -> None:
    assert input_readiness(run, 1, known, DEADLINE, GRACE, tick(after)).state == says


@pytest.mark.parametrize("phase", ["open", "closed", "undecided"])
@pytest.mark.parametrize("name", ["sum", "later"])
def test_input_readiness_ignores_round_that_waits_for_the_step(phase: str, name: str) -> None:
    """The step writes the dataset it reads, and another node was faster; likewise for later steps."""
    run = run_at()
    last = run.steps[1].model_copy(
        update={"spec": run.steps[1].spec.model_copy(update={"name": "later"}), "phase": StepPhase.PENDING}
    )
    run = run.model_copy(update={"steps": [*run.steps, last]})
    found = of(phase, name).changed(closed_at=tick(0), reason="few")
    assert input_readiness(run, 1, [of("decided"), found], DEADLINE, GRACE, tick(0)) == READY
    other = found.changed(pipeline="other", id=round_id(tick(0), "other", name))
    assert input_readiness(run, 1, [of("decided"), other], DEADLINE, GRACE, tick(0)) != READY


def minute(number: int, phase: str, **changes: Any) -> Round:
    """Return a round of the input's dataset for an earlier tick."""
    name = round_id(tick(number), PIPELINE, STEP)
    return of(phase).changed(id=name, tick=tick(number), **changes)


@pytest.mark.parametrize(
    ("earlier", "after", "says"),
    [
        ([], 11, "late"),
        ([minute(-1, "open")], 11, "wait"),
        ([minute(-1, "closed", closed_at=tick(10))], 15, "wait"),
        ([minute(-2, "undecided", ended_at=tick(1), reason="few"), minute(-1, "open")], 15, "wait"),
        ([minute(-1, "decided", ended_at=tick(10.9))], 11, "wait"),
        ([minute(-1, "decided", ended_at=tick(10.9))], 12, "late"),
        ([minute(1, "open")], 11, "late"),
        ([minute(-1, "open").changed(id="elsewhere")], 11, "late"),
        ([minute(-1, "open")], 21, "late"),
    ],
)
def test_input_readiness_not_late_while_earlier_rounds_are_live(
    earlier: list[Round], after: int, says: str
) -> None:
    """Rounds that are due at once are decided in sequence; the wait is limited to a round's duration."""
    assert input_readiness(run_at(), 1, [*earlier, of("open")], DEADLINE, GRACE, tick(after)).state == says


END = datetime(2999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "forged",
    [
        of("open").changed(deadline=END),
        of("open", "other").changed(deadline=END),
        of("closed").changed(closed_at=END),
        of("closed").changed(closed_at=END, definition=VoteDefinition(deadline=30 * 86400)),
    ],
)
def test_input_readiness_false_times_do_not_hold_a_step(forged: Round) -> None:
    held = input_readiness(run_at(), 1, [of("decided"), forged], DEADLINE, GRACE, tick(20))
    assert (held.state, held.until) == ("wait", tick(20) + GRACE)
    assert input_readiness(run_at(), 1, [of("decided"), forged], DEADLINE, GRACE, tick(21)).state == "late"


def test_input_readiness_ignores_misplaced_round() -> None:
    elsewhere = [of("open").changed(id="zzz"), of("undecided").changed(id=round_id(tick(1), "x", STEP))]
    assert input_readiness(run_at(), 1, [of("decided"), *elsewhere], DEADLINE, GRACE, tick(0)) == READY


def test_input_readiness_without_writer_waits_for_known_rounds_only() -> None:
    run = run_at()
    alone = run.model_copy(update={"steps": run.steps[1:]})
    assert input_readiness(alone, 0, [], DEADLINE, GRACE, tick(0)) == READY
    assert input_readiness(alone, 0, [of("open", "other")], DEADLINE, GRACE, tick(0)).state == "wait"


async def judged(fed: Federation, name: str) -> InputReadiness:
    manager = fed[name].manager
    assert manager is not None
    return await manager.rounds.input_gate.check(run_at(), 1)


async def left_alone(fed: Federation) -> None:
    await fed.collect(0, [writes(a="0")] * 2)
    await fed.ended(0)
    await fed.without("b")


async def test_input_gate_late_when_left_alone(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a", "node-b"]) as fed:
        await left_alone(fed)
        found = await judged(fed, "a")
        assert (found.state, "maoctl dataset alone data" in found.reason) == ("late", True)


async def test_input_gate_reader_uses_dataset_record(tmp_path: Path) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a", "node-b"]) as fed:
        await left_alone(fed)
        await fed["a"].withdraw()
        manager = fed["a"].manager
        assert manager is not None
        await eventually(lambda: not manager.rounds.voters.cached("data"))
        assert await judged(fed, "a") == READY


async def test_input_gate_waits_for_shared_dataset_while_voters_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with federation(tmp_path, MemoryStore(), nodes=["node-a", "node-b"]) as fed:
        await fed.collect(0, [writes(a="0")] * 2)
        await fed.ended(0)

        async def unknown(*_: object) -> bool:
            raise StoreUnavailable("away")

        monkeypatch.setattr(DatasetSharing, "is_shared", unknown)
        run = run_at(minutes=7)
        written = run.steps[0].model_copy(update={"times": {StepPhase.SUCCEEDED: datetime.now(UTC)}})
        run = run.model_copy(update={"steps": [written, *run.steps[1:]]})
        manager = fed["a"].manager
        assert manager is not None
        assert (await manager.rounds.input_gate.check(run, 1)).state == "wait"
