"""The spans of runs: whatever becomes of a run, they form one tree, and each phase is in it once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mao_shared.models import Failure, Run, StepRun
from mao_shared.models.run import Exit
from mao_shared.runs.spans import phase_spans, run_span_id, run_spans, trace_facts
from mao_shared.states import STEP_ENDED, STEP_OWNER, STEP_TRANSITIONS, Owner, RunPhase, StepPhase
from mao_shared.tracing import FinishedSpan
from tests.scheduler import samples

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASKED = f"00-{TRACE}-{CALLER}-01"
FAILED = Failure(code="tool-failed", detail="It said: password=t0ps3cret", fault="tool")


def queued(traceparent: str | None = ASKED, steps: int = 1) -> Run:
    return Run(
        id="20260131T120000Z-daily-0a1b2c3d",
        pipeline="daily",
        node="node-1",
        trigger="manual",
        created_at=NOON,
        steps=[StepRun(spec=samples.step(f"step-{number}")) for number in range(steps)],
        traceparent=traceparent,
    )


class Simulation:
    """A run on its way; collects the spans of each write, as the services that write make them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.now = run.created_at
        self.spans: list[FinishedSpan] = []
        self.left: list[str] = []  # phases

    def start(self) -> None:
        self.write(Owner.SCHEDULER, self.run.move(RunPhase.RUNNING, started_at=self.tick()))

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def move(self, index: int, phase: StepPhase, **changes: Any) -> None:
        """Move a step, as the owner of its phase does."""
        before = self.run.steps[index]
        if before.phase in (StepPhase.FAILED, StepPhase.LOST):  # retried
            fresh = StepRun(spec=before.spec, phase=before.phase, attempt=before.attempt + 1)
            step = fresh.move(phase, self.tick(), **changes)
        else:
            step = before.move(phase, self.tick(), **changes)
            if before.phase in before.times:
                self.left.append(before.phase)
        self.write(STEP_OWNER[before.phase], self.run.with_step(index, step))

    def end(self, phase: RunPhase) -> None:
        ended = self.run.move(phase, finished_at=self.tick())
        self.write(Owner.SCHEDULER, ended)

    def write(self, owner: Owner, run: Run) -> None:
        if owner is Owner.SCHEDULER:
            self.spans += run_spans(self.run, run)
        else:
            for index, (before, after) in enumerate(zip(self.run.steps, run.steps, strict=True)):
                self.spans += phase_spans(run, index, before, after)
        self.run = run

    def names(self) -> list[str]:
        return [span.name for span in self.spans]


def check_tree(spans: list[FinishedSpan], above: str | None) -> None:
    """Check that the spans are one tree of one trace below `above`."""
    ids = [span.context.span_id for span in spans]
    assert len(set(ids)) == len(ids)
    assert {span.context.trace_id for span in spans} == {TRACE}
    [root] = [span for span in spans if span.parent == above]
    assert root.is_request
    assert all(span.parent in ids for span in spans if span is not root)
    by_id = {span.context.span_id: span for span in spans}
    for span in spans:
        assert span.start <= span.end
        if span is not root:
            parent = by_id[span.parent or ""]
            assert parent.start <= span.start
            assert span.end <= parent.end


@given(st.data())
def test_spans_of_any_run_are_one_tree(data: st.DataObject) -> None:
    run = Simulation(queued(steps=2))
    run.start()
    for index in range(2):
        for _ in range(20):
            step = run.run.steps[index]
            options = sorted(STEP_TRANSITIONS[step.phase])
            if step.phase in (StepPhase.FAILED, StepPhase.LOST) and step.attempt >= 3:
                options = []
            if not options:
                break
            phase = data.draw(st.sampled_from(options))
            run.move(index, phase, error=FAILED if phase is StepPhase.FAILED else None)
        if run.run.steps[index].phase is not StepPhase.SUCCEEDED:
            break
    if all(step.phase in {*STEP_ENDED, StepPhase.PENDING} for step in run.run.steps):
        run.end(data.draw(st.sampled_from([RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED])))
        check_tree(run.spans, CALLER)
        phases = {phase.value for phase in StepPhase}
        assert sorted(name for name in run.names() if name in phases) == sorted(run.left)


def test_run_that_succeeds_is_a_tree_of_run_step_and_phases() -> None:
    run = Simulation(queued())
    run.start()
    for phase in ("preparing", "ready", "starting", "running"):
        run.move(0, StepPhase(phase))
    run.move(0, StepPhase.EXITED, exit=Exit(code=0))
    for phase in ("publishing", "succeeded"):
        run.move(0, StepPhase(phase), snapshot="c0ffee")
    run.end(RunPhase.SUCCEEDED)

    assert run.names() == [
        *("preparing", "ready", "starting", "running", "exited", "publishing"),
        *("step-0", "RUN daily"),
    ]
    *_, step, whole = run.spans
    assert (whole.start, whole.end) == (NOON, run.now)
    assert (whole.parent, whole.error) == (CALLER, None)
    assert whole.attributes["cicd.pipeline.result"] == "success"
    assert step.attributes["cicd.pipeline.task.run.result"] == "success"
    assert (step.attributes["process.exit.code"], step.attributes["mao.snapshot"]) == (0, "c0ffee")


def test_each_attempt_has_its_span_and_nothing_quotes_the_tool() -> None:
    run = Simulation(queued())
    run.start()
    for _ in range(2):
        for phase in ("preparing", "ready", "starting", "running"):
            run.move(0, StepPhase(phase))
        run.move(0, StepPhase.FAILED, error=FAILED)
        if run.run.steps[0].attempt == 1:
            run.move(0, StepPhase.PENDING)
    run.run = run.run.model_copy(update={"error": FAILED})
    run.end(RunPhase.FAILED)

    attempts = [span for span in run.spans if span.name == "step-0"]
    assert [span.attributes["cicd.pipeline.task.run.id"] for span in attempts] == ["step-0/1", "step-0/2"]
    assert [span.error for span in attempts] == ["tool-failed"] * 2
    assert run.names().count("pending") == 1  # the wait before the second attempt
    assert "t0ps3cret" not in repr(run.spans)
    check_tree(run.spans, CALLER)


def test_phase_that_was_passed_unseen_has_a_span() -> None:
    """A container that ended before the runner saw it run goes from `starting` to `exited` in one write."""
    run = queued()
    starting = run.steps[0].model_copy(
        update={"phase": StepPhase.STARTING, "times": {StepPhase.STARTING: NOON}}
    )
    ended = starting.move(StepPhase.RUNNING, NOON).move(StepPhase.EXITED, NOON + timedelta(seconds=1))
    assert [span.name for span in phase_spans(run, 0, starting, ended)] == ["starting", "running"]


def test_write_that_moves_no_phase_makes_no_span() -> None:
    run = queued()
    waits = run.steps[0].model_copy(update={"waiting": "for a slot"})
    assert phase_spans(run, 0, run.steps[0], waits) == []
    assert run_spans(run, run.with_step(0, waits)) == []


@pytest.mark.parametrize("traceparent", [None, "", "nonsense"])
def test_run_without_a_trace_makes_no_span(traceparent: str | None) -> None:
    run = Simulation(queued(traceparent))
    run.start()
    run.move(0, StepPhase.PREPARING)
    run.move(0, StepPhase.CANCELLED)
    run.end(RunPhase.CANCELLED)
    assert run.spans == []
    assert trace_facts(run.run) == {}


def test_trace_of_a_tick_begins_with_the_run() -> None:
    own = run_span_id(queued().id)
    run = Simulation(queued(f"00-{TRACE}-{own}-01"))
    run.start()
    run.move(0, StepPhase.PREPARING)
    run.move(0, StepPhase.CANCELLED)
    run.end(RunPhase.CANCELLED)
    check_tree(run.spans, None)
    assert trace_facts(run.run) == {"trace_id": TRACE}
