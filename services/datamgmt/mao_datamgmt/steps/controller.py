"""Moves steps through the phases of the data manager: preparing → ready, exited → publishing → succeeded.

Every arrow is one guarded write. The work between two of them may be repeated: a workspace is created
again, an existing commit is found, a push has nothing to push.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.push import Pusher
from mao_datamgmt.disk import caused_by_full_disk, require_space
from mao_datamgmt.git_executor import GitExecutor
from mao_datamgmt.metrics import DataMetrics
from mao_datamgmt.rounds.input_gate import READY, InputGate, InputReadiness
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_git import RepositoryError, sweep_half_written
from mao_git.errors import disk_full, disk_trouble, stable_text
from mao_shared import logs
from mao_shared.errors import MaoError, RemoteUnavailable, Unavailable
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Failure, Fault, Point, Reproduced, Run, StepRun
from mao_shared.models.check import (
    CheckResult,
    Quarantine,
    failed_checks_text,
    quarantine_branch,
    strongest_reaction,
)
from mao_shared.models.run import TRUTH_WAITS
from mao_shared.reconcile import Mirror
from mao_shared.runs.spans import phase_spans, trace_facts
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Check, Put, Stored
from mao_shared.store.records import dump
from mao_shared.tracing import Tracing

from .prepare import PreparedStep, has_written_input, prepare, quarantined_input, with_own_input
from .publish import (
    CheckFailed,
    Committed,
    Published,
    commit_output,
    committed_snapshot,
    push_output,
    push_quarantined,
)
from .queue import WaitQueue, blocked_by, earlier_tick, earlier_tick_reason, in_use, queue_place
from .reproduce import compare_output, prepare_reproduction
from .workspaces import WorkspaceExists, remove_tree, remove_workspace
from .worktrees import retain

log = logs.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

PENDING_CHECK_SECONDS = 30.0  # until a waiting step is checked again, in case a notification was lost
SPACE_CHECK_SECONDS = 10.0  # between two checks of the free space
_TRANSIENT = frozenset({"branch-busy", "given-up"})  # over before anybody would read about it
_TOOL_FAULTS = frozenset({"output-missing", "output-refused", "output-unreadable", "check-failed"})
ReadPoints = Callable[[Run, StepRun], Awaitable[Mapping[str, Sequence[Point]]]]


class StagingController:
    """Reconciles runs whose active step has to be prepared or published.

    `reconcile` is called by `mao_shared.reconcile.Controller`; `waits` wakes runs that may continue.

    `follow_ups` returns the writes to add to the transaction that ends a step; `read_points` the values so
    far of the metrics that a step's checks are about.
    """

    def __init__(
        self,
        context: Context,
        mirror: Mirror[Run],
        executor: GitExecutor,
        sharing: DatasetSharing,
        pusher: Pusher,
        metrics: DataMetrics,
        input_gate: InputGate,
        follow_ups: Callable[[Run, StepRun], Sequence[Put]],
        read_points: ReadPoints,
        tracing: Tracing | None = None,
    ) -> None:
        self.waits = WaitQueue()
        self._context, self._mirror, self._executor = context, mirror, executor
        self._sharing, self._input_gate = sharing, input_gate
        self._pusher, self._metrics, self._follow_ups = pusher, metrics, follow_ups
        self._read_points = read_points
        self._tracing = tracing or Tracing()
        metrics.waiting.set_function(lambda: len(self.waits))
        self._cancelled: dict[str, asyncio.Event] = {}  # run in progress → set when it is to be cancelled
        mirror.subscribe(self._check_cancelled)
        self._granted: dict[str, str] = {}  # dataset → run that is being prepared
        self._handlers: dict[StepPhase, Callable[[Stored[Run], int], Awaitable[float | None]]] = {
            StepPhase.PREPARING: self._prepare,
            StepPhase.EXITED: self._begin_publishing,
            StepPhase.PUBLISHING: self._publish,
        }

    async def reconcile(self, run_id: str) -> float | None:
        """Execute the action for the run's phase; return the seconds until the next check."""
        stored = self._mirror.get(run_id)
        active = stored is not None and stored.record.phase is RunPhase.RUNNING
        index = stored.record.active_step() if stored is not None and active else None
        if stored is None or index is None or stored.record.steps[index].phase is not StepPhase.PREPARING:
            self.waits.stop_waiting(run_id)
        if stored is None or index is None:
            return None
        handler = self._handlers.get(stored.record.steps[index].phase)
        if handler is None:
            return None
        self._cancelled[run_id] = asyncio.Event()
        self._check_cancelled(run_id)
        try:
            step = stored.record.steps[index].spec.name
            with logs.bind(run=run_id, step=step, **trace_facts(stored.record)):
                return await handler(stored, index)
        finally:
            del self._cancelled[run_id]

    def _check_cancelled(self, run_id: str) -> None:
        """Stop a run from waiting if it is to be cancelled."""
        cancelled, stored = self._cancelled.get(run_id), self._mirror.get(run_id)
        if cancelled is not None and stored is not None and stored.record.cancel is not None:
            cancelled.set()

    # preparing

    async def _prepare(self, stored: Stored[Run], index: int) -> float | None:
        run, step = stored.record, stored.record.steps[index]
        if run.cancel is not None:
            return await self._cancel(stored, index)
        if run.reproduces is not None:
            return await self._create_workspace(stored, index)
        source, wrote_input, readiness = step.spec.input, has_written_input(run, index), READY
        if (held := quarantined_input(run, index)) is not None:
            readiness = InputReadiness("late", held)
        elif source is not None and not await self._sharing.is_solo(source.name):
            readiness = await self._input_gate.check(run, index)
        if readiness.state == "wait":
            return await self._wait_for_round(stored, index, readiness)
        if readiness.state == "late":
            if step.spec.on_late_truth == "skip":
                await self._move(stored, index, StepPhase.SKIPPED, waiting=readiness.reason)
                return None
            stored, wrote_input = with_own_input(stored, index), False
            log.warning("prepare.late_truth", takes=step.spec.on_late_truth, reason=readiness.reason)
        others, held_back = [other.record for _, other in self._mirror.items()], self.waits.held_back()
        earlier = earlier_tick(others, run, index, held_back)
        if earlier is not None:
            self.waits.wait_behind(run.id, earlier.id)
            await self._note(stored, index, earlier_tick_reason(earlier))
            return None
        reason = blocked_by(others, self._granted, run, index, held_back)
        if reason is not None:
            return await self._wait_for_dataset(stored, index, reason)
        self.waits.stop_waiting(run.id)
        try:
            await self._executor.read(require_space, self._context)
        except MaoError as error:
            self.waits.wait_for_space(run.id)  # the end of another run may free some
            await self._note(stored, index, error.detail)
            return SPACE_CHECK_SECONDS
        self._granted[step.spec.output.name] = run.id
        try:
            return await self._create_workspace(stored, index, wrote_input=wrote_input)
        finally:
            self._granted.pop(step.spec.output.name, None)

    async def _wait_for_round(
        self, stored: Stored[Run], index: int, readiness: InputReadiness
    ) -> float | None:
        run, source = stored.record, stored.record.steps[index].spec.input
        assert source is not None  # noqa: S101 (otherwise there is nothing to wait for)
        assert run.scheduled_for is not None  # noqa: S101 (nor without a tick)
        self.waits.wait_for_round(run.id, source.name, run.scheduled_for)
        await self._note(stored, index, readiness.reason)
        if readiness.until is None:
            return PENDING_CHECK_SECONDS
        return max((readiness.until - self._context.clock.now()).total_seconds(), 0.0)

    async def _wait_for_dataset(self, stored: Stored[Run], index: int, reason: str) -> float | None:
        """Queue the step for its dataset.

        Only the first in the queue updates its reason; otherwise each end of a run would rewrite them all.
        """
        run, step = stored.record, stored.record.steps[index]
        dataset = step.spec.output.name
        first = self.waits.wait_for_dataset(run.id, dataset, queue_place(run, index))
        if first or not (step.waiting or "").startswith(in_use(dataset)):
            await self._note(stored, index, reason)
        return PENDING_CHECK_SECONDS if first else None

    async def _create_workspace(
        self, stored: Stored[Run], index: int, *, wrote_input: bool = False
    ) -> float | None:
        step = stored.record.steps[index]
        datasets = [ref.name for ref in (step.spec.output, step.spec.input) if ref is not None]
        workspace = self._workspace(stored.record, index)
        try:
            with self._metrics.prepare_seconds.time():
                original = stored.record.reproduces is None
                prepare_step = (
                    partial(prepare, self._context, step.spec, wrote_input=wrote_input)
                    if original
                    else partial(prepare_reproduction, self._context, step)
                )
                prepared: PreparedStep = await self._change(stored, datasets, prepare_step, workspace)
        except WorkspaceExists:
            # An earlier pass created it and could not write `ready`. That write may have been applied all the
            # same, or may still be; a tool works in there then. So the document is written before the folder
            # is removed: one of the two writes fails.
            step = step.model_copy(update={"waiting": "its workspace is being recreated"})
            if await self._write(stored, index, step) is not None:
                await self._executor.read(remove_tree, workspace.root)
            return None
        except (MaoError, RepositoryError, OSError) as error:
            await self._fail_or_retry(stored, index, error)
            return None
        for dataset, stale in prepared.fetched.items():
            self._pusher.note_fetch(dataset, stale)
            if stale is not None:
                log.warning("prepare.remote_away", dataset=dataset, code=stale.code, error=stale.detail)
        changes = {"base_commit": prepared.base_commit, "input_commit": prepared.input_commit}
        await self._move(stored, index, StepPhase.READY, **changes)
        return None

    # publishing

    async def _begin_publishing(self, stored: Stored[Run], index: int) -> float | None:
        if stored.record.cancel is not None:
            return await self._cancel(stored, index)
        moved = await self._move(stored, index, StepPhase.PUBLISHING)
        return None if moved is None else await self._publish(moved, index)

    async def _publish(self, stored: Stored[Run], index: int) -> float | None:
        run, step = stored.record, stored.record.steps[index]
        with self._metrics.publish_seconds.time():
            if run.cancel is None:
                return await self._publish_once(stored, index)
            # The commit of a cancelled step is kept, and pushed if possible.
            made = await self._executor.read(committed_snapshot, self._context, run, step)
            if made is None:
                return await self._cancel(stored, index)
            try:
                return await self._publish_once(stored, index)
            except Unavailable as error:
                latest = self._mirror.get(run.id) or stored
                if made.quarantined:
                    return await self._end_quarantined(latest, index, made, error)
                published = Published(made.commit, None, error, pushed=False)
                return await self._succeed(latest, index, published, None, made.checks)

    async def _publish_once(self, stored: Stored[Run], index: int) -> float | None:
        run, step = stored.record, stored.record.steps[index]
        workspace, dataset = self._workspace(run, index), step.spec.output.name
        try:
            if run.reproduces is not None:
                return await self._compare(stored, index)
            points = await self._read_points(run, step)
            made = await self._change(
                stored, [dataset], commit_output, self._context, run, step, workspace, points
            )
            if made is None:
                return await self._succeed(stored, index, None, "the tool wrote nothing")
            solo = await self._sharing.is_solo(dataset)
            obstacle = None if solo else await self._sharing.obstacle(dataset)
            promote = obstacle is None
            if made.quarantined:
                failure = await self._change(
                    stored, [dataset], push_quarantined, self._context, step, made.commit, promote=promote
                )
                return await self._end_quarantined(stored, index, made, failure)
            published: Published = await self._change(
                stored, [dataset], push_output, self._context, run, step, made.commit, promote=promote
            )
        except (MaoError, RepositoryError, OSError) as error:
            if not isinstance(error, MaoError):
                await self._executor.write([dataset], sweep_half_written, self._context.data.clone(dataset))
            await self._fail_or_retry(stored, index, error)
            return None
        has_tick = run.scheduled_for is not None
        remark = None if solo else await self._sharing.remark(dataset, has_tick=has_tick)
        if strongest_reaction(made.checks) is not None:
            remark = f"published although a check failed: {failed_checks_text(made.checks)}"
        return await self._succeed(stored, index, published, remark, made.checks)

    async def _compare(self, stored: Stored[Run], index: int) -> float | None:
        """End a reproduction. Its files are kept for inspection if they differ."""
        run, step = stored.record, stored.record.steps[index]
        workspace = self._workspace(run, index)
        comparison: Reproduced = await self._executor.read(
            compare_output, self._context, run, step, workspace
        )
        moved = await self._move(stored, index, StepPhase.SUCCEEDED, reproduced=comparison)
        if moved is not None and comparison.same:
            await self._executor.read(remove_workspace, workspace)
        return None

    async def _succeed(
        self,
        stored: Stored[Run],
        index: int,
        published: Published | None,
        remark: str | None,
        checks: Sequence[CheckResult] = (),
    ) -> float | None:
        changes: dict[str, Any] = {"waiting": remark, "error": None, "checks": list(checks)}
        dataset = stored.record.steps[index].spec.output.name
        if published is not None:
            changes |= {"snapshot": published.snapshot, "ground_truth": published.ground_truth}
            changes["pushed"] = published.pushed
            if published.failure is not None:
                state = TRUTH_WAITS if published.pushed else "not pushed yet"
                changes["waiting"] = f"{state}: {published.failure.detail}"
                self._pusher.push_later(dataset, published.failure)
            else:
                self._pusher.note_pushed(dataset)
        await self._end(stored, index, changes)
        return None

    async def _end_quarantined(
        self, stored: Stored[Run], index: int, made: Committed, failure: MaoError | None
    ) -> float | None:
        """End a step whose output was quarantined: it succeeds without a snapshot."""
        dataset = stored.record.steps[index].spec.output.name
        if failure is not None:
            self._pusher.push_later(dataset, failure)
        else:
            self._pusher.note_pushed(dataset)
        changes: dict[str, Any] = {
            "waiting": f"quarantined: {failed_checks_text(made.checks)}",
            "error": None,
            "checks": made.checks,
            "quarantine": Quarantine(commit=made.commit, branch=quarantine_branch(self._context.node)),
        }
        await self._end(stored, index, changes)
        return None

    async def _end(self, stored: Stored[Run], index: int, changes: dict[str, Any]) -> None:
        """Write that a step has succeeded, and keep its workspace for the next one."""
        if await self._move(stored, index, StepPhase.SUCCEEDED, **changes) is not None:
            dataset, workspace = (
                stored.record.steps[index].spec.output.name,
                self._workspace(stored.record, index),
            )
            await self._executor.write([dataset], retain, self._context.data, dataset, workspace)

    # writes

    async def _cancel(self, stored: Stored[Run], index: int) -> float | None:
        await self._move(stored, index, StepPhase.CANCELLED)
        return None

    async def _fail_or_retry(self, stored: Stored[Run], index: int, error: Exception) -> None:
        """End the step as failed, or raise Unavailable so that it is retried.

        An unavailable remote ends the step too: the scheduler decides about retries.
        """
        if not isinstance(error, MaoError):
            if await self._executor.read(caused_by_full_disk, self._context, error):
                problem = disk_full("no space was left while writing")
            else:
                cause = getattr(error, "strerror", None) or stable_text(str(error)) or type(error).__name__
                problem = disk_trouble(cause)
            await self._show(stored, index, problem)
            raise problem from error
        if isinstance(error, Unavailable) and not isinstance(error, RemoteUnavailable):
            await self._show(stored, index, error)
            raise error
        fault: Fault = "tool" if error.code in _TOOL_FAULTS else "infrastructure"
        log.warning("step.failed", code=error.code, error=error.detail)
        checks = error.results if isinstance(error, CheckFailed) else []
        await self._move(stored, index, StepPhase.FAILED, error=_failure(error, fault), checks=checks)

    async def _change(
        self,
        stored: Stored[Run],
        datasets: list[str],
        call: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Write to datasets for a run. Raises Abandoned if it is cancelled while it waits for writers."""
        cancelled = self._cancelled[stored.record.id]
        return await self._executor.write_unless(cancelled, datasets, call, *args, **kwargs)

    async def _move(
        self, stored: Stored[Run], index: int, phase: StepPhase, **changes: Any
    ) -> Stored[Run] | None:
        """Write a step's next phase; return None if another writer was first.

        The watch then delivers the other version.
        """
        step = stored.record.steps[index].move(phase, self._context.clock.now(), **changes)
        written = await self._write(stored, index, step, self._follow_ups(stored.record, step))
        if written is not None and phase is not StepPhase.PUBLISHING:
            self._metrics.count(step)
        return written

    async def _note(self, stored: Stored[Run], index: int, reason: str) -> None:
        """Record why a step waits, unless that is recorded already."""
        step = stored.record.steps[index]
        if step.waiting != reason:
            await self._write(stored, index, step.model_copy(update={"waiting": reason}))

    async def _show(self, stored: Stored[Run], index: int, problem: MaoError) -> None:
        """Record a problem as the reason why the step waits; during publishing, also as its error."""
        step = stored.record.steps[index]
        if problem.code in _TRANSIENT or step.waiting == problem.detail:
            return
        changes: dict[str, Any] = {"waiting": problem.detail}
        if step.phase is StepPhase.PUBLISHING:
            changes["error"] = _failure(problem, "infrastructure")
        log.warning("step.trouble", code=problem.code, error=problem.detail)
        await self._write(stored, index, step.model_copy(update=changes))

    async def _write(
        self, stored: Stored[Run], index: int, step: StepRun, follow_ups: Sequence[Put] = ()
    ) -> Stored[Run] | None:
        run, records = stored.record.with_step(index, step), self._mirror.records
        if follow_ups:
            key = records.prefix + run.id
            writes = [Put(key, dump(run)), *follow_ups]
            revision = await records.store.transact([Check(key, stored.revision)], writes)
        else:
            revision = await records.replace(run.id, run, stored.revision)
        if revision is None:
            log.info("step.race_lost", wanted=step.phase)
            return None
        self._mirror.note(run.id, run, revision)
        if self._tracing.is_on:
            self._tracing.record(phase_spans(run, index, stored.record.steps[index], step))
        return Stored(run, revision)

    def _workspace(self, run: Run, index: int) -> Workspace:
        return self._context.data.workspace(run.id, index, run.steps[index].attempt)


def _failure(error: MaoError, fault: Fault) -> Failure:
    return Failure(code=error.code, detail=error.detail, next=error.next, fault=fault)
