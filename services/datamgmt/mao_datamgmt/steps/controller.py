"""Moves steps through the phases of the data manager: preparing → ready, exited → publishing → succeeded.

Every arrow is one guarded write. What happens between two of them may happen twice: a workspace is laid anew,
a commit is found again, a push has nothing left to push.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.push import Pusher
from mao_datamgmt.disk import met_full_disk, require_room
from mao_datamgmt.executor import GitExecutor
from mao_datamgmt.rounds.input_gate import GO, InputGate, InputReadiness
from mao_datamgmt.rounds.participation import DatasetSharing
from mao_datamgmt.telemetry import DataMetrics
from mao_git import RepositoryError, sweep_half_written
from mao_git.errors import disk_full, disk_trouble, stable_text
from mao_shared import logs
from mao_shared.errors import MaoError, RemoteUnavailable, Unavailable
from mao_shared.host.data_dir import Workspace
from mao_shared.models import Failure, Fault, Reproduced, Run, StepRun
from mao_shared.models.run import TRUTH_WAITS
from mao_shared.reconcile import Mirror
from mao_shared.states import RunPhase, StepPhase
from mao_shared.store import Check, Put, Stored
from mao_shared.store.records import dump

from .prepare import PreparedStep, has_written_input, prepare, with_own_input
from .publish import Published, commit_output, committed_snapshot, push_output
from .queue import WaitQueue, blocked_by, earlier_tick, earlier_tick_reason, in_use, queue_place
from .reproduce import compare_output, prepare_reproduction
from .workspaces import WorkspaceExists, remove_tree, remove_workspace
from .worktrees import retain

log = logs.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

LOOK_AGAIN = 30.0  # seconds after which a waiting step is looked at, should a hint be lost
ROOM_PAUSE = 10.0  # seconds between two looks whether the disk has room
_PASSING = frozenset({"branch-busy", "given-up"})  # over before anybody reads of it
_TOOLS_FAULT = frozenset({"output-missing", "output-refused", "output-unreadable"})


class StagingController:
    """`reconcile` is for `mao_shared.reconcile.Controller`; `waits` tells which runs may go on now.

    `follow_ups`: what is written in the same transaction as the end of a step, so that it is analysed later.
    """

    def __init__(
        self,
        context: Context,
        mirror: Mirror[Run],
        works: GitExecutor,
        agreement: DatasetSharing,
        pusher: Pusher,
        metrics: DataMetrics,
        truths: InputGate,
        follow_ups: Callable[[Run, StepRun], Sequence[Put]],
    ) -> None:
        self.waits = WaitQueue()
        self._context = context
        self._mirror = mirror
        self._works = works
        self._agreement = agreement
        self._pusher = pusher
        self._metrics = metrics
        self._truths = truths
        self._follow_ups = follow_ups
        metrics.waiting.set_function(lambda: len(self.waits))
        self._wishes: dict[str, asyncio.Event] = {}  # runs at work here → set once they are to end
        mirror.subscribe(self._heed)
        self._granted: dict[str, str] = {}  # dataset → run that is being prepared
        self._handlers: dict[StepPhase, Callable[[Stored[Run], int], Awaitable[float | None]]] = {
            StepPhase.PREPARING: self._prepare,
            StepPhase.EXITED: self._begin_publishing,
            StepPhase.PUBLISHING: self._publish,
        }

    async def reconcile(self, run_id: str) -> float | None:
        """Does what the run's present phase asks for; seconds until it is to be looked at again."""
        stored = self._mirror.get(run_id)
        active = stored is not None and stored.record.phase is RunPhase.RUNNING
        index = stored.record.active_step() if stored is not None and active else None
        if stored is None or index is None or stored.record.steps[index].phase is not StepPhase.PREPARING:
            self.waits.over(run_id)
        if stored is None or index is None:
            return None
        handler = self._handlers.get(stored.record.steps[index].phase)
        if handler is None:
            return None
        self._wishes[run_id] = asyncio.Event()
        self._heed(run_id)
        try:
            with logs.bind(run=run_id, step=stored.record.steps[index].spec.name):
                return await handler(stored, index)
        finally:
            del self._wishes[run_id]

    def _heed(self, run_id: str) -> None:
        """Lets a run that is to end wait for nobody any more."""
        wish, stored = self._wishes.get(run_id), self._mirror.get(run_id)
        if wish is not None and stored is not None and stored.record.cancel is not None:
            wish.set()

    # preparing

    async def _prepare(self, stored: Stored[Run], index: int) -> float | None:
        run, step = stored.record, stored.record.steps[index]
        if run.cancel is not None:
            return await self._cancel(stored, index)
        if run.reproduces is not None:
            return await self._lay_out(stored, index)
        verdict, wrote_input = await self._input_readiness(run, index), has_written_input(run, index)
        if verdict.state == "wait":
            return await self._wait_for_truth(stored, index, verdict)
        if verdict.state == "late":
            if step.spec.on_late_truth == "skip":
                return await self._skip(stored, index, verdict.reason)
            stored, wrote_input = with_own_input(stored, index), False
            log.warning("prepare.late_truth", takes=step.spec.on_late_truth, reason=verdict.reason)
        others, held_back = [other.record for _, other in self._mirror.items()], self.waits.held_back()
        before = earlier_tick(others, run, index, held_back)
        if before is not None:
            self.waits.behind(run.id, before.id)
            await self._note(stored, index, earlier_tick_reason(before))
            return None
        reason = blocked_by(others, self._granted, run, index, held_back)
        if reason is not None:
            return await self._wait_for_dataset(stored, index, reason)
        self.waits.over(run.id)
        if not await self._has_room(stored, index):
            return ROOM_PAUSE
        self._granted[step.spec.output.name] = run.id
        try:
            return await self._lay_out(stored, index, wrote_input=wrote_input)
        finally:
            self._granted.pop(step.spec.output.name, None)

    async def _input_readiness(self, run: Run, index: int) -> InputReadiness:
        """Rounds are asked about a dataset that other nodes have a say in, and about no other."""
        source = run.steps[index].spec.input
        if source is None or await self._agreement.is_solo(source.name):
            return GO
        return await self._truths.check(run, index)

    async def _wait_for_truth(self, stored: Stored[Run], index: int, verdict: InputReadiness) -> float | None:
        run, source = stored.record, stored.record.steps[index].spec.input
        assert source is not None  # noqa: S101 (else there is nothing to wait for)
        assert run.scheduled_for is not None  # noqa: S101 (nor without a tick)
        self.waits.for_round(run.id, source.name, run.scheduled_for)
        await self._note(stored, index, verdict.reason)
        if verdict.until is None:
            return LOOK_AGAIN
        return max((verdict.until - self._context.clock.now()).total_seconds(), 0.0)

    async def _wait_for_dataset(self, stored: Stored[Run], index: int, reason: str) -> float | None:
        """Only who is first in the line says anew for whom it waits: else each end were a write of each."""
        run, step = stored.record, stored.record.steps[index]
        dataset = step.spec.output.name
        first = self.waits.for_dataset(run.id, dataset, queue_place(run, index))
        if first or not (step.waiting or "").startswith(in_use(dataset)):
            await self._note(stored, index, reason)
        return LOOK_AGAIN if first else None

    async def _skip(self, stored: Stored[Run], index: int, reason: str) -> float | None:
        await self._move(stored, index, StepPhase.SKIPPED, waiting=reason)
        return None

    async def _has_room(self, stored: Stored[Run], index: int) -> bool:
        """Whether the disk has room for a run; a step waits for it as long as its tool has not begun."""
        try:
            await self._works.read(require_room, self._context)
        except MaoError as error:
            self.waits.for_room(stored.record.id)  # the end of another run may make some
            await self._note(stored, index, error.detail)
            return False
        return True

    async def _lay_out(self, stored: Stored[Run], index: int, *, wrote_input: bool = False) -> float | None:
        step = stored.record.steps[index]
        datasets = [ref.name for ref in (step.spec.output, step.spec.input) if ref is not None]
        workspace = self._workspace(stored.record, index)
        try:
            with self._metrics.prepare_seconds.time():
                original = stored.record.reproduces is None
                lay = (
                    partial(prepare, self._context, step.spec, wrote_input=wrote_input)
                    if original
                    else partial(prepare_reproduction, self._context, step)
                )
                prepared: PreparedStep = await self._change(stored, datasets, lay, workspace)
        except WorkspaceExists:
            await self._clear(stored, index)
            return None
        except MaoError as error:
            if _passes(error):
                await self._show(stored, index, error)
                raise
            return await self._fail(stored, index, error)
        except (RepositoryError, OSError) as error:
            raise await self._disk_trouble(stored, index, error) from error
        for dataset, stale in prepared.looked_at.items():
            self._pusher.note_fetch(dataset, stale)
            if stale is not None:
                log.warning("prepare.remote_away", dataset=dataset, code=stale.code, error=stale.detail)
        changes = {"base_commit": prepared.base_commit, "input_commit": prepared.input_commit}
        await self._move(stored, index, StepPhase.READY, **changes)
        return None

    async def _clear(self, stored: Stored[Run], index: int) -> None:
        """Makes way for a fresh workspace where an earlier pass has laid one but could not write `ready`.

        That write may have come through all the same, or may still: then a tool works in there. So the
        document is written first: this fails after that write, and that write fails after this.
        """
        step = stored.record.steps[index].model_copy(update={"waiting": "lays its workspace afresh"})
        if await self._write(stored, index, step) is not None:
            await self._works.read(remove_tree, self._workspace(stored.record, index).root)

    # publishing

    async def _begin_publishing(self, stored: Stored[Run], index: int) -> float | None:
        if stored.record.cancel is not None:
            return await self._cancel(stored, index)
        moved = await self._move(stored, index, StepPhase.PUBLISHING)
        return None if moved is None else await self._publish(moved, index)

    async def _publish(self, stored: Stored[Run], index: int) -> float | None:
        with self._metrics.publish_seconds.time():
            if stored.record.cancel is not None:
                return await self._give_up(stored, index)
            return await self._publish_once(stored, index)

    async def _give_up(self, stored: Stored[Run], index: int) -> float | None:
        """Ends a step that was cancelled: a commit that is made stays, and is pushed when it can be."""
        run, step = stored.record, stored.record.steps[index]
        made = await self._works.read(committed_snapshot, self._context, run, step)
        if made is None:
            return await self._cancel(stored, index)
        try:
            return await self._publish_once(stored, index)
        except Unavailable as error:
            latest = self._mirror.get(run.id) or stored
            return await self._succeed(latest, index, Published(made, None, error, pushed=False), None)

    async def _publish_once(self, stored: Stored[Run], index: int) -> float | None:
        run, step = stored.record, stored.record.steps[index]
        workspace, dataset = self._workspace(run, index), step.spec.output.name
        try:
            if run.reproduces is not None:
                return await self._compare(stored, index)
            commit = await self._change(stored, [dataset], commit_output, self._context, run, step, workspace)
            if commit is None:
                return await self._succeed(stored, index, None, "the tool wrote nothing")
            solo = await self._agreement.is_solo(dataset)
            obstacle = None if solo else await self._agreement.obstacle(dataset)
            published: Published = await self._change(
                stored, [dataset], push_output, self._context, run, step, commit, promote=obstacle is None
            )
        except MaoError as error:
            if _passes(error):
                await self._show(stored, index, error)
                raise
            return await self._fail(stored, index, error)
        except (RepositoryError, OSError) as error:
            await self._works.change([dataset], sweep_half_written, self._context.data.clone(dataset))
            raise await self._disk_trouble(stored, index, error) from error
        has_tick = run.scheduled_for is not None
        remark = None if solo else await self._agreement.remark(dataset, has_tick=has_tick)
        return await self._succeed(stored, index, published, remark)

    async def _compare(self, stored: Stored[Run], index: int) -> float | None:
        """Ends a reproduction; the files of one that differs are kept to be looked at."""
        run, step = stored.record, stored.record.steps[index]
        workspace = self._workspace(run, index)
        found: Reproduced = await self._works.read(compare_output, self._context, run, step, workspace)
        moved = await self._move(stored, index, StepPhase.SUCCEEDED, reproduced=found)
        if moved is not None and found.same:
            await self._works.read(remove_workspace, workspace)
        return None

    async def _succeed(
        self, stored: Stored[Run], index: int, published: Published | None, remark: str | None
    ) -> float | None:
        facts: dict[str, Any] = {"waiting": remark, "error": None}
        dataset = stored.record.steps[index].spec.output.name
        if published is not None:
            facts |= {"snapshot": published.snapshot, "ground_truth": published.ground_truth}
            facts["pushed"] = published.pushed
            if published.failure is not None:
                what = TRUTH_WAITS if published.pushed else "not pushed yet"
                facts["waiting"] = f"{what}: {published.failure.detail}"
                self._pusher.push_later(dataset, published.failure)
            else:
                self._pusher.note_pushed(dataset)
        if await self._move(stored, index, StepPhase.SUCCEEDED, **facts) is not None:
            workspace = self._workspace(stored.record, index)
            await self._works.change([dataset], retain, self._context.data, dataset, workspace)
        return None

    # writes

    async def _cancel(self, stored: Stored[Run], index: int) -> float | None:
        await self._move(stored, index, StepPhase.CANCELLED)
        return None

    async def _fail(self, stored: Stored[Run], index: int, error: MaoError) -> float | None:
        fault: Fault = "tool" if error.code in _TOOLS_FAULT else "infrastructure"
        failure = _failure(error, fault)
        log.warning("step.failed", code=error.code, error=error.detail)
        await self._move(stored, index, StepPhase.FAILED, error=failure)
        return None

    async def _change(
        self,
        stored: Stored[Run],
        datasets: list[str],
        call: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Changes datasets for a run; raises GivenUp when it is cancelled before its turn."""
        wish = self._wishes[stored.record.id]
        return await self._works.change_unless(wish, datasets, call, *args, **kwargs)

    async def _move(
        self, stored: Stored[Run], index: int, phase: StepPhase, **changes: Any
    ) -> Stored[Run] | None:
        """Writes a step's next phase; None when somebody else wrote first: the watch brings the run again."""
        step = stored.record.steps[index].move(phase, self._context.clock.now(), **changes)
        written = await self._write(stored, index, step, self._follow_ups(stored.record, step))
        if written is not None and phase is not StepPhase.PUBLISHING:
            self._metrics.count(step)
        return written

    async def _note(self, stored: Stored[Run], index: int, reason: str) -> None:
        """Shows why a step does not move on, once for each reason."""
        step = stored.record.steps[index]
        if step.waiting != reason:
            await self._write(stored, index, step.model_copy(update={"waiting": reason}))

    async def _disk_trouble(self, stored: Stored[Run], index: int, error: Exception) -> Unavailable:
        """What to raise, to be tried again, for trouble that is not the tool's; shown on the step as well."""
        if await self._works.read(met_full_disk, self._context, error):
            trouble = disk_full("no room was left while writing")
        else:
            why = getattr(error, "strerror", None) or stable_text(str(error)) or type(error).__name__
            trouble = disk_trouble(why)
        await self._show(stored, index, trouble)
        return trouble

    async def _show(self, stored: Stored[Run], index: int, trouble: MaoError) -> None:
        """Shows on the step what keeps it from going on; once its output is at stake, as its error."""
        step = stored.record.steps[index]
        if trouble.code in _PASSING or step.waiting == trouble.detail:
            return
        changes: dict[str, Any] = {"waiting": trouble.detail}
        if step.phase is StepPhase.PUBLISHING:
            changes["error"] = _failure(trouble, "infrastructure")
        log.warning("step.trouble", code=trouble.code, error=trouble.detail)
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
        return Stored(run, revision)

    def _workspace(self, run: Run, index: int) -> Workspace:
        return self._context.data.workspace(run.id, index, run.steps[index].attempt)


def _failure(error: MaoError, fault: Fault) -> Failure:
    return Failure(code=error.code, detail=error.detail, next=error.next, fault=fault)


def _passes(error: MaoError) -> bool:
    """Whether to try again by ourselves; a remote that is needed and away is the scheduler's matter."""
    return isinstance(error, Unavailable) and not isinstance(error, RemoteUnavailable)
