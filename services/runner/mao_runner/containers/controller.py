"""Moves steps from `ready` to `exited`: observe, decide (plan.py), act on the engine, write guarded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mao_runner.drivers.protocol import Container, ContainerSpec, Driver, EngineRefused
from mao_runner.labels import INSTALLATION, StepAttempt, attempt_of, container_name
from mao_runner.logs.writer import LogUnavailable, LogWriter
from mao_runner.metrics import RunnerMetrics
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger
from mao_shared.models import Run, StepRun
from mao_shared.reconcile import Controller, Mirror
from mao_shared.states import StepPhase
from mao_shared.store import Stored

from . import outcome, plan
from .admission import Admission, AgreementsNotReady
from .data_dir import HostPaths, assign_owner, find_engine_socket
from .engine import ContainerMirror, EngineMonitor
from .network import ToolNetwork
from .plan import Observed, WaitKind, runner_step
from .slots import SlotQueue
from .spec import check_host_network, step_container

log = get_logger(__name__)

NOW = 0.0  # seconds: look again now
CONFLICT_RETRY = 1.0  # seconds after a lost race, should its event not come
REMOVE_TIMEOUT = 3.0  # seconds that removals may take when the service stops
WAITING_SHOWN_AFTER = 1.0  # seconds that a step waits before its document says so
LOG_RETRY, MAX_LOG_RETRY = 1.0, 30.0  # seconds until a log that cannot be stored is tried again
LOG_CONDITION = "log"


@dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """What the settings say about all containers. `log_max`: bytes; `operators`: see `check_host_network`."""

    tool_uid: int
    log_max: int
    operators: frozenset[int] = frozenset()


class StepController:
    """Owns the phases ready, starting and running of this node's steps."""

    def __init__(
        self,
        mirror: Mirror[Run],
        containers: ContainerMirror,
        logs: LogWriter,
        agreed: Admission,
        *,
        slots: int,
        paths: HostPaths,
        installation: str,
        policy: ContainerPolicy,
        network: ToolNetwork,
        conditions: Conditions,
        metrics: RunnerMetrics,
        clock: Clock,
        engine: EngineMonitor,
    ) -> None:
        self._engine = engine
        self.mirror = mirror
        self.containers = containers
        self.logs = logs
        self._agreed = agreed
        self.controller = Controller("steps", self.reconcile, conditions=conditions).watches(mirror)
        self.slots = SlotQueue(mirror, slots, self.controller.add, metrics.count_steps, self._needs_no_slot)
        self._driver: Driver = containers.driver
        self._paths = paths
        self._data_dir = DataDir(paths.data_dir)
        self._installation = installation
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._stopped: dict[StepAttempt, datetime] = {}
        self._seen_running: dict[StepAttempt, tuple[datetime, float]] = {}
        self._unstored: dict[str, tuple[str, float]] = {}
        """Run → subject of the condition: its log is not on the disk; and seconds until it is tried again."""
        self._later: set[asyncio.Task[None]] = set()
        self._network = network
        self._conditions = conditions
        containers.subscribe(self._container_changed)
        network.subscribe(self._look_at_all)

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
            await asyncio.wait(self._later, timeout=REMOVE_TIMEOUT)
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    async def reconcile(self, name: str) -> float | None:
        """Acts on one run until nothing is left to do now; seconds until it wants to be looked at again."""
        while True:
            stored = self.mirror.get(name)
            if stored is None or (index := runner_step(stored.record)) is None:
                self._log_settled(name)
                self.slots.unpark(name)
                return None
            key = StepAttempt(name, index, stored.record.steps[index].attempt)
            again = await self._act(stored, key)
            if again != NOW:
                return again

    def _container_changed(self, container: Container | None) -> None:
        if container is None:
            self._look_at_all()
        elif (key := attempt_of(container.labels)) is not None:
            self.controller.add(key.run)

    def _look_at_all(self) -> None:
        self.slots.share_soon()
        for name, _ in list(self.mirror.items()):
            self.controller.add(name)

    def _needs_no_slot(self, name: str, step: StepRun) -> bool:
        """One that has ended and waits for its log; one that may not start, so that others can."""
        if step.phase is StepPhase.READY or self.slots.is_parked(name):
            return not self._network.is_usable(step.spec.network)
        return name in self._unstored

    def _view(self, run: Run, key: StepAttempt) -> Observed:
        running = run.steps[key.step].phase is StepPhase.RUNNING
        container = self.containers.get(container_name(run.node, key))
        return Observed(
            step=run.steps[key.step],
            cancelled=run.cancel is not None,
            container=container if container is not None and self._is_of(container, key) else None,
            now=self._steady_now(key) if running else self._clock.now(),
            engine=self.containers.synced.is_set(),
            network=self._network.is_usable(run.steps[key.step].spec.network),
            parked=self.slots.is_parked(key.run),
            granted=self.slots.granted(key.run),
            ahead=self.slots.ahead(key.run),
            stopped_at=self._stopped.get(key),
        )

    def _steady_now(self, key: StepAttempt) -> datetime:
        """When the step was first seen running, and the time since then by the steady clock."""
        seen, began = self._seen_running.setdefault(key, (self._clock.now(), time.monotonic()))
        return seen + timedelta(seconds=time.monotonic() - began)

    async def _act(self, stored: Stored[Run], key: StepAttempt) -> float | None:
        match plan.decide(self._view(stored.record, key)):
            case plan.AwaitSlot(ahead):
                return await self._wait(stored, key, "slot", str(ahead))
            case plan.AwaitEngine():
                return await self._wait(stored, key, "engine")
            case plan.AwaitNetwork():
                if stored.record.steps[key.step].phase is StepPhase.STARTING:
                    self.slots.park(key.run)
                return await self._wait(stored, key, "network", self._network.problem.detail)
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

    async def _tend(self, stored: Stored[Run], key: StepAttempt, action: plan.Action) -> float | None:
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
                return plan.KILL_RETRY
            case plan.Settle(container):
                return await self._settle(stored, key, container)
            case _:
                return None

    async def _wait(
        self, stored: Stored[Run], key: StepAttempt, kind: WaitKind, more: str = ""
    ) -> float | None:
        """Says why a step does not run yet, once, since every write wakes all services."""
        step = stored.record.steps[key.step]
        if step.phase is StepPhase.RUNNING or plan.is_same_reason(
            step.waiting, plan.waiting_reason(kind, more)
        ):
            return None
        waited = (self._clock.now() - step.times.get(step.phase, self._clock.now())).total_seconds()
        if waited < WAITING_SHOWN_AFTER:
            return WAITING_SHOWN_AFTER - waited + 0.01
        said = step.model_copy(update={"waiting": plan.waiting_reason(kind, more)})
        await self._write(stored, key, said)
        return None

    async def _begin(self, stored: Stored[Run], key: StepAttempt) -> float:
        step = stored.record.steps[key.step]
        with self.slots.taking(key.run):
            return await self._write(stored, key, step.move(StepPhase.STARTING, self._clock.now()))

    async def _launch(self, stored: Stored[Run], key: StepAttempt) -> float:
        """The document asks for a container; whether it gets one says the operator's agreement."""
        container = None
        self.slots.unpark(key.run)
        try:
            await self._agreed.check(stored.record, key)
            container = await self._driver.create(await self._spec(stored.record, key))
            if container.state == "created":
                await self._driver.start(container.id)
                container = replace(container, state="running")
        except EngineRefused as error:
            if error.code == "tool-network-missing":
                self._network.invalidate(error)
                return CONFLICT_RETRY
            self._engine.refused(error)
            step = outcome.mark_refused(stored.record.steps[key.step], error, self._clock.now())
            return await self._leave(stored, key, step, container)
        except AgreementsNotReady:
            return await self._wait(stored, key, "agreement") or CONFLICT_RETRY
        self._engine.started()
        self._metrics.starts.inc()
        self.containers.note(container)
        self.logs.ensure(key, container.id)
        return NOW

    async def _spec(self, run: Run, key: StepAttempt) -> ContainerSpec:
        step = run.steps[key.step]
        workspace = self._data_dir.workspace(key.run, key.step, key.attempt)
        try:
            user = await asyncio.to_thread(
                assign_owner, workspace.data, self._policy.tool_uid, step.spec.privileges.user
            )
        except OSError as error:
            raise EngineRefused(
                f"The step's workspace {workspace.data} cannot be used: {error.strerror}.",
                code="workspace-missing",
                next="Run the pipeline again; the data manager lays a fresh workspace.",
            ) from error
        check_host_network(step.spec.network, step.spec.privileges, user, self._policy.operators)
        return step_container(
            run,
            key,
            installation=self._installation,
            data=self._paths.host(workspace.data),
            input_dir=self._paths.host(workspace.input) if step.spec.input else None,
            user=user,
            log_max=self._policy.log_max,
            network=self._network.engine_name(step.spec.network),
            engine_socket=await find_engine_socket(self._driver, step.spec.privileges),
        )

    async def _note_running(self, stored: Stored[Run], key: StepAttempt, container: Container) -> float:
        self.logs.ensure(key, container.id)
        step = stored.record.steps[key.step]
        now = self._clock.now()
        if (ready := step.times.get(StepPhase.READY)) is not None:
            self._metrics.start_seconds.observe((now - ready).total_seconds())
        engine = self.containers.engine
        return await self._write(stored, key, outcome.mark_running(step, container, now, engine))

    async def _stop(self, key: StepAttempt, container: Container, grace: float) -> float:
        await self._driver.signal(container.id, "TERM")
        self._stopped[key] = self._steady_now(key)
        return grace

    async def _settle(self, stored: Stored[Run], key: StepAttempt, container: Container) -> float:
        """The log is on the disk before the phase is written; the container goes after both."""
        try:
            log_end = await self.logs.finish(key, container.id)
        except LogUnavailable as error:
            return await self._await_log(stored, key, container, error)
        end = outcome.ContainerEnd(
            container=container,
            now=self._clock.now(),
            cancelled=stored.record.cancel is not None,
            stopped=key in self._stopped,
            tail=log_end.tail,
            log_bytes=log_end.size,
            log_sha256=log_end.sha256,
            engine=self.containers.engine,
        )
        return await self._leave(
            stored, key, outcome.mark_ended(stored.record.steps[key.step], end), container
        )

    async def _await_log(
        self, stored: Stored[Run], key: StepAttempt, container: Container, error: LogUnavailable
    ) -> float:
        """The container stays, since it has the log; its slot is given to others."""
        step = stored.record.steps[key.step]
        subject, pause = self._unstored.get(key.run, (f"{key.run}/{step.spec.name}", LOG_RETRY))
        self._unstored[key.run] = subject, min(pause * 2, MAX_LOG_RETRY)
        self.slots.share_soon()
        self._conditions.report(
            LOG_CONDITION,
            subject,
            detail=f"The tool has ended, and its log is not stored yet: {error.detail}",
            next_step="Make room on the disk of the data directory, or mend what is said here; it is tried "
            f"again by itself. To give the step up, with its log: docker rm {container.name}",
        )
        words = f"has ended, and waits until its log is stored ({error.detail})"
        if not plan.is_same_reason(step.waiting, words):
            await self._write(stored, key, step.model_copy(update={"waiting": words}))
        return pause

    def _log_settled(self, run: str) -> None:
        unstored = self._unstored.pop(run, None)
        if unstored is not None:
            self._conditions.clear(LOG_CONDITION, unstored[0])

    async def _confirm(self, stored: Stored[Run], key: StepAttempt) -> float:
        step = stored.record.steps[key.step]
        there = await self._driver.inspect(step.container_id or container_name(stored.record.node, key))
        if there is not None and not self._is_of(there, key):
            there = None  # the document names a container that was not made for it
        if there is not None and there.state != "created":
            self.containers.note(there)
            return NOW
        return await self._leave(stored, key, outcome.mark_lost(step, self._clock.now()), there)

    def _is_of(self, container: Container, key: StepAttempt) -> bool:
        ours = container.labels.get(INSTALLATION) == self._installation
        return ours and attempt_of(container.labels) == key

    async def _cancel(self, stored: Stored[Run], key: StepAttempt, container: Container | None) -> float:
        step = stored.record.steps[key.step].move(StepPhase.CANCELLED, self._clock.now())
        return await self._leave(stored, key, step, container)

    async def _leave(
        self, stored: Stored[Run], key: StepAttempt, step: StepRun, container: Container | None
    ) -> float:
        """Writes a phase that is another service's; only then is the container given up."""
        again = await self._write(stored, key, step)
        if again == NOW:
            self._stopped.pop(key, None)
            self._seen_running.pop(key, None)
            self._log_settled(key.run)
            self.logs.forget(key)
            if container is not None:
                self._remove_later(container)
        return again

    async def _write(self, stored: Stored[Run], key: StepAttempt, step: StepRun) -> float:
        """Guarded by the revision that was read; AT_ONCE when it went through."""
        run = stored.record.with_step(key.step, step)
        revision = await self.mirror.records.replace(key.run, run, stored.revision)
        if revision is None:
            return CONFLICT_RETRY
        self.mirror.note(key.run, run, revision)
        before = stored.record.steps[key.step].phase
        if step.phase is not before:
            self._say(key, step)
        return NOW

    def _say(self, key: StepAttempt, step: StepRun) -> None:
        code = step.error.code if step.error else ""
        if step.phase not in plan.RUNNER_PHASES:
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

    def _remove_later(self, container: Container) -> None:
        task = asyncio.create_task(self._remove(container))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _remove(self, container: Container) -> None:
        """What fails here is found among the leftovers."""
        try:
            await self._driver.remove(container.id)
            self.containers.forget(container.name)
        except Exception as error:  # noqa: BLE001 (the clean-up of leftovers tries again)
            log.warning("container.not_removed", container=container.name, error=str(error))
