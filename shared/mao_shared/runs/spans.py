"""The spans of a run, from its documents: the run, each attempt of a step, each phase of an attempt. Pure.

A span is made when it is over, by the service whose write ends it, from the times that the documents have: a
span that is open in memory would be lost when a service restarts. Ids are derived from the run, so that every
service knows those of its parents, whether or not they have been sent. Names of attributes are those of
OpenTelemetry's conventions for CI/CD where there are such.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import pairwise

from mao_shared.models import Failure, Run, StepRun
from mao_shared.states import RUN_ENDED, RunPhase, StepPhase
from mao_shared.tracing import FinishedSpan, TraceContext

Attributes = dict[str, str | int | float | bool]
_RESULTS = {"succeeded": "success", "cancelled": "cancellation", "skipped": "skip", "missed": "skip"}


def run_span_id(run_id: str) -> str:
    """Return the id of a run's span."""
    return _span_id(run_id)


def trace_of(run: Run) -> TraceContext | None:
    """Return the place of a run's span; None for a run that is not traced."""
    asked = TraceContext.parse(run.traceparent)
    return None if asked is None else asked.with_span(run_span_id(run.id))


def trace_facts(run: Run) -> dict[str, str]:
    """Return the fields of a log line that say which trace a run belongs to."""
    own = TraceContext.parse(run.traceparent)
    return {} if own is None else {"trace_id": own.trace_id}


def phase_spans(run: Run, index: int, before: StepRun, after: StepRun) -> list[FinishedSpan]:
    """Return the spans of the phases that a step has left between two of its documents."""
    own = trace_of(run)
    if own is None or before.phase is after.phase or before.attempt != after.attempt:
        return []
    entered = [(phase, after.times[phase]) for phase in StepPhase if phase in after.times]
    left = [
        (phase, since, until)
        for (phase, since), (_, until) in pairwise(entered)
        if phase is before.phase or phase not in before.times
    ]
    parent = _attempt_id(run, index, after.attempt)
    spans = []
    for phase, since, until in left:
        span_id = _span_id(run.id, str(index), str(after.attempt), phase)
        last = phase is left[-1][0]
        spans.append(
            FinishedSpan(
                name=phase.value,
                context=own.with_span(span_id),
                parent=parent,
                start=since,
                end=until,
                attributes=_step_facts(run, after) | (_error_facts(after.error) if last else {}),
                error=after.error.code if last and after.error else None,
            )
        )
    return spans


def run_spans(before: Run, after: Run) -> list[FinishedSpan]:
    """Return the spans that end with a write of the scheduler: waits for a retry, attempts, the run."""
    own = trace_of(after)
    if own is None:
        return []
    spans: list[FinishedSpan] = []
    ended = after.phase in RUN_ENDED and before.phase not in RUN_ENDED
    for index, (old, new) in enumerate(zip(before.steps, after.steps, strict=False)):
        if old.attempt != new.attempt:
            spans += _attempt_spans(after, index, old)
            continue
        if old.phase is StepPhase.PENDING:
            spans += phase_spans(after, index, old, new)
        if ended:
            spans += _attempt_spans(after, index, new)
    return [*spans, _run_span(after, own)] if ended else spans


def _run_span(run: Run, own: TraceContext) -> FinishedSpan:
    asked = TraceContext.parse(run.traceparent)
    facts: Attributes = {
        **_run_facts(run),
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.result": _result(run.phase, run.error),
        "mao.run.trigger": run.trigger,
    }
    if run.scheduled_for is not None:
        facts["mao.run.scheduled_for"] = run.scheduled_for.isoformat()
    return FinishedSpan(
        name=f"RUN {run.pipeline}",
        context=own,
        parent=None if asked is None or asked.span_id == own.span_id else asked.span_id,
        start=run.created_at,
        end=run.finished_at or run.created_at,
        attributes=facts | _error_facts(run.error),
        error=run.error.code if run.error else None,
        is_request=True,
    )


def _attempt_spans(run: Run, index: int, step: StepRun) -> list[FinishedSpan]:
    """Return the span of a step's attempt, none for one that has not begun."""
    own, moments = trace_of(run), _moments(step)
    if own is None or len(moments) < 2:
        return []
    facts: Attributes = {
        **_step_facts(run, step),
        "cicd.pipeline.task.run.result": _result(step.phase, step.error),
        "container.image.name": step.spec.image.name,
        "mao.dataset": step.spec.output.name,
    }
    if step.exit is not None:
        facts["process.exit.code"] = step.exit.code
    if step.snapshot is not None:
        facts["mao.snapshot"] = step.snapshot
    return [
        FinishedSpan(
            name=step.spec.name,
            context=own.with_span(_attempt_id(run, index, step.attempt)),
            parent=own.span_id,
            start=moments[0],
            end=moments[-1],
            attributes=facts | _error_facts(step.error),
            error=step.error.code if step.error else None,
        )
    ]


def _moments(step: StepRun) -> list[datetime]:
    return [step.times[phase] for phase in StepPhase if phase in step.times]


def _run_facts(run: Run) -> Attributes:
    return {"cicd.pipeline.name": run.pipeline, "cicd.pipeline.run.id": run.id, "mao.node": run.node}


def _step_facts(run: Run, step: StepRun) -> Attributes:
    return {
        **_run_facts(run),
        "cicd.pipeline.task.name": step.spec.name,
        "cicd.pipeline.task.run.id": f"{step.spec.name}/{step.attempt}",
    }


def _error_facts(error: Failure | None) -> Attributes:
    """Return what is said of a failure: no detail, which may quote the tool's output."""
    return {} if error is None else {"error.type": error.code, "mao.fault": error.fault}


def _result(phase: RunPhase | StepPhase, error: Failure | None) -> str:
    """Return the word of the conventions: `failure` is the tool's, `error` the system's."""
    if phase.value in _RESULTS:
        return _RESULTS[phase.value]
    if error is not None and error.code == "tool-timed-out":
        return "timeout"
    return "failure" if error is not None and error.fault == "tool" else "error"


def _attempt_id(run: Run, index: int, attempt: int) -> str:
    return _span_id(run.id, str(index), str(attempt))


def _span_id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
