"""Moves steps from `ready` to `exited`: look, decide (`plan.py`), act, write guarded; then look again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.logs import get_logger
from mao_shared.models import Run, StepRun
from mao_shared.reconcile import Controller, Mirror
from mao_shared.states import StepPhase
from mao_shared.store import Stored
from mao_shared.workspace import DataDir

from . import outcome, plan
from .container import step_container
from .drivers import Container, ContainerSpec, Driver, EngineRefused
from .hostdir import HostPaths
from .labels import Attempt, attempt_of, container_name
from .logs import Logs, read_end
from .metrics import RunnerMetrics
from .observe import Containers
from .ownership import claim_data
from .plan import View, WaitKind
from .slots import SlotQueue, runners_step

log = get_logger(__name__)

AT_ONCE = 0.0  # seconds: look again now
LOOK_AGAIN = 1.0  # seconds after a lost race, should its event not come
REMOVE_LIMIT = 3.0  # seconds that removals may take when the service stops
SHOW_WAITING_AFTER = 1.0  # seconds that a step waits before its document says so


@dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """What the settings say about all containers. `log_max` in bytes."""

    tool_uid: int
    log_max: int


class StepController:
    """Owns the phases ready, starting and running of this node's steps."""

    def __init__(
        self,
        mirror: Mirror[Run],
        containers: Containers,
        logs: Logs,
        *,
        slots: int,
        paths: HostPaths,
        installation: str,
        policy: ContainerPolicy,
        metrics: RunnerMetrics,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self.mirror = mirror
        self.containers = containers
        self.logs = logs
        self.controller = Controller(mirror, self.reconcile, name="steps", conditions=conditions)
        self.slots = SlotQueue(mirror, slots, self.controller.queue.add, metrics.count_steps)
        self._driver: Driver = containers.driver
        self._paths = paths
        self._data_dir = DataDir(paths.data_dir)
        self._installation = installation
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._stopped: dict[Attempt, datetime] = {}
        self._seen_running: dict[Attempt, tuple[datetime, float]] = {}
        self._later: set[asyncio.Task[None]] = set()
        containers.subscribe(self._container_changed)

    async def run(self) -> None:
        """Works until cancelled; the mirror and the containers have to run beside it.

        What the mirror had before this controller listened to it is looked at as well.
        """
        await self.mirror.synced.wait()
        self._look_at_all()
        await self.controller.run()

    async def close(self) -> None:
        """Gives removals that are under way a moment; what they leave is found again by label."""
        if self._later:
            await asyncio.wait(self._later, timeout=REMOVE_LIMIT)
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    async def reconcile(self, name: str) -> float | None:
        """Acts on one run until nothing is left to do now; seconds until it wants to be looked at again."""
        while True:
            stored = self.mirror.get(name)
            if stored is None or (index := runners_step(stored.record)) is None:
                return None
            key = Attempt(name, index, stored.record.steps[index].attempt)
            again = await self._act(stored, key)
            if again != AT_ONCE:
                return again

    def _container_changed(self, container: Container | None) -> None:
        if container is None:
            self._look_at_all()
        elif (key := attempt_of(container.labels)) is not None:
            self.controller.queue.add(key.run)

    def _look_at_all(self) -> None:
        self.slots.share_soon()
        for name, _ in list(self.mirror.items()):
            self.controller.queue.add(name)

    def _view(self, run: Run, key: Attempt) -> View:
        running = run.steps[key.step].phase is StepPhase.RUNNING
        return View(
            step=run.steps[key.step],
            cancelled=run.cancel is not None,
            container=self.containers.get(container_name(run.node, key)),
            now=self._steady_now(key) if running else self._clock.now(),
            engine=self.containers.synced.is_set(),
            granted=self.slots.granted(run.id),
            ahead=self.slots.ahead(run.id),
            stopped_at=self._stopped.get(key),
        )

    def _steady_now(self, key: Attempt) -> datetime:
        """When the step was first seen running, and the time since then by the steady clock."""
        seen, began = self._seen_running.setdefault(key, (self._clock.now(), time.monotonic()))
        return seen + timedelta(seconds=time.monotonic() - began)

    async def _act(self, stored: Stored[Run], key: Attempt) -> float | None:
        match plan.decide(self._view(stored.record, key)):
            case plan.AwaitSlot(ahead):
                return await self._wait(stored, key, "slot", ahead)
            case plan.AwaitEngine():
                return await self._wait(stored, key, "engine")
            case plan.Begin():
                return await self._begin(stored, key)
            case plan.Launch():
                return await self._launch(stored, key)
            case plan.Confirm():
                return await self._confirm(stored, key)
            case plan.Cancel(container):
                return await self._cancel(stored, key, container)
            case action:
                return await self._tend(stored, key, action)

    async def _tend(self, stored: Stored[Run], key: Attempt, action: plan.Action) -> float | None:
        """What is done about a container that has been started."""
        match action:
            case plan.NoteRunning(container):
                return await self._note_running(stored, key, container)
            case plan.Watch(container, seconds):
                self.logs.ensure(key, container.id)
                return max(seconds, 0.01)
            case plan.Stop(container, grace):
                return await self._stop(key, container, grace)
            case plan.Kill(container):
                await self._driver.signal(container.id, "KILL")
                return plan.KILL_AGAIN
            case plan.Settle(container):
                return await self._settle(stored, key, container)
            case _:
                return None

    async def _wait(self, stored: Stored[Run], key: Attempt, kind: WaitKind, ahead: int = 0) -> float | None:
        """Says why a step is still ready, once, since every write wakes all services."""
        step = stored.record.steps[key.step]
        if step.phase is not StepPhase.READY or plan.says_already(step.waiting, kind):
            return None
        waited = (self._clock.now() - step.times.get(StepPhase.READY, self._clock.now())).total_seconds()
        if waited < SHOW_WAITING_AFTER:
            return SHOW_WAITING_AFTER - waited + 0.01
        said = step.model_copy(update={"waiting": plan.waiting_words(kind, ahead)})
        await self._write(stored, key, said)
        return None

    async def _begin(self, stored: Stored[Run], key: Attempt) -> float:
        step = stored.record.steps[key.step]
        with self.slots.taking(key.run):
            return await self._write(stored, key, step.move(StepPhase.STARTING, self._clock.now()))

    async def _launch(self, stored: Stored[Run], key: Attempt) -> float:
        container = None
        try:
            container = await self._driver.create(await self._spec(stored.record, key))
            if container.state == "created":
                await self._driver.start(container.id)
                container = replace(container, state="running")
        except EngineRefused as error:
            step = outcome.refused(stored.record.steps[key.step], error, self._clock.now())
            return await self._leave(stored, key, step, container)
        self._metrics.starts.inc()
        self.containers.note(container)
        self.logs.ensure(key, container.id)
        return AT_ONCE

    async def _spec(self, run: Run, key: Attempt) -> ContainerSpec:
        step = run.steps[key.step]
        workspace = self._data_dir.workspace(key.run, key.step, key.attempt)
        try:
            user = await asyncio.to_thread(
                claim_data, workspace.data, self._policy.tool_uid, step.spec.privileges.user
            )
        except OSError as error:
            raise EngineRefused(
                f"The step's workspace {workspace.data} cannot be used: {error.strerror}.",
                code="workspace-missing",
                next="Run the pipeline again; the data manager lays a fresh workspace.",
            ) from error
        return step_container(
            run,
            key,
            installation=self._installation,
            data=self._paths.host(workspace.data),
            input_dir=self._paths.host(workspace.input) if step.spec.input else None,
            user=user,
            log_max=self._policy.log_max,
        )

    async def _note_running(self, stored: Stored[Run], key: Attempt, container: Container) -> float:
        self.logs.ensure(key, container.id)
        step = stored.record.steps[key.step]
        now = self._clock.now()
        if (ready := step.times.get(StepPhase.READY)) is not None:
            self._metrics.start_seconds.observe((now - ready).total_seconds())
        engine = self.containers.engine
        return await self._write(stored, key, outcome.note_running(step, container, now, engine))

    async def _stop(self, key: Attempt, container: Container, grace: float) -> float:
        await self._driver.signal(container.id, "TERM")
        self._stopped[key] = self._steady_now(key)
        return grace

    async def _settle(self, stored: Stored[Run], key: Attempt, container: Container) -> float:
        """The log is complete before the phase is written; the container goes after both."""
        await self.logs.finish(key, container.id)
        log_end = await asyncio.to_thread(read_end, self.logs.path(key))
        end = outcome.End(
            container=container,
            now=self._clock.now(),
            cancelled=stored.record.cancel is not None,
            stopped=key in self._stopped,
            tail=log_end.tail,
            log_bytes=log_end.size,
            log_sha256=log_end.sha256,
            engine=self.containers.engine,
        )
        return await self._leave(stored, key, outcome.settle(stored.record.steps[key.step], end), container)

    async def _confirm(self, stored: Stored[Run], key: Attempt) -> float:
        step = stored.record.steps[key.step]
        there = await self._driver.inspect(step.container_id or container_name(stored.record.node, key))
        if there is not None and there.state != "created":
            self.containers.note(there)
            return AT_ONCE
        return await self._leave(stored, key, outcome.vanished(step, self._clock.now()), there)

    async def _cancel(self, stored: Stored[Run], key: Attempt, container: Container | None) -> float:
        step = stored.record.steps[key.step].move(StepPhase.CANCELLED, self._clock.now())
        return await self._leave(stored, key, step, container)

    async def _leave(
        self, stored: Stored[Run], key: Attempt, step: StepRun, container: Container | None
    ) -> float:
        """Writes a phase that is another service's; only then is the container given up."""
        again = await self._write(stored, key, step)
        if again == AT_ONCE:
            self._stopped.pop(key, None)
            self._seen_running.pop(key, None)
            if container is not None:
                self._remove_later(key, container)
        return again

    async def _write(self, stored: Stored[Run], key: Attempt, step: StepRun) -> float:
        """Guarded by the revision that was read; AT_ONCE when it went through."""
        run = stored.record.with_step(key.step, step)
        revision = await self.mirror.records.replace(key.run, run, stored.revision)
        if revision is None:
            return LOOK_AGAIN
        self.mirror.note(key.run, run, revision)
        before = stored.record.steps[key.step].phase
        if step.phase is not before:
            self._say(key, step)
        return AT_ONCE

    def _say(self, key: Attempt, step: StepRun) -> None:
        code = step.error.code if step.error else ""
        if step.phase not in plan.RUNNERS:
            self._metrics.outcomes.labels(step.phase.value, code).inc()
        log.info(
            "step.moved",
            phase=step.phase.value,
            run=key.run,
            step=key.step,
            attempt=key.attempt,
            exit=step.exit.code if step.exit else None,
            code=code or None,
        )

    def _remove_later(self, key: Attempt, container: Container) -> None:
        task = asyncio.create_task(self._remove(key, container))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _remove(self, key: Attempt, container: Container) -> None:
        """The container goes once its log is on the disk; what fails here is found among the leftovers."""
        try:
            await self.logs.stored(key)
            await self._driver.remove(container.id)
            self.containers.forget(container.name)
        except Exception as error:  # noqa: BLE001 (the clean-up of leftovers tries again)
            log.warning("container.not_removed", container=container.name, error=str(error))
