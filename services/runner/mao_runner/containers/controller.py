"""Moves steps from `ready` to `exited`: observes, decides (plan.py), acts on the engine, writes guarded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mao_runner.drivers.protocol import Container, ContainerSpec, Driver, EngineRefused
from mao_runner.labels import INSTALLATION, StepAttempt, container_name, labelled_attempt
from mao_runner.logs.writer import LogUnavailable, LogWriter
from mao_runner.metrics import RunnerMetrics
from mao_runner.secrets.delivery import SecretDelivery
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.host.data_dir import DataDir
from mao_shared.logs import get_logger
from mao_shared.models import Run, StepRun
from mao_shared.reconcile import Controller, Mirror
from mao_shared.runs.spans import phase_spans, trace_facts
from mao_shared.states import StepPhase
from mao_shared.store import Stored
from mao_shared.tracing import Tracing

from . import outcome, plan
from .admission import Admission, AgreementsNotReady
from .data_dir import HostPaths, assign_owner, find_engine_socket
from .engine import ContainerMirror, EngineMonitor
from .network import ToolNetwork
from .plan import StepObservation, WaitKind, runner_step
from .slots import SlotQueue
from .spec import check_host_network, step_container

log = get_logger(__name__)

NOW = 0.0  # seconds: reconcile again at once
CONFLICT_RETRY = 1.0  # seconds after a lost race, in case its event does not come
REMOVE_TIMEOUT = 3.0  # seconds that pending removals may take when the service stops
WAITING_SHOWN_AFTER = 1.0  # seconds that a step waits before its document gives the reason
LOG_RETRY, MAX_LOG_RETRY = 1.0, 30.0  # seconds until storing a log is retried
LOG_CONDITION = "log"


@dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """Settings of all containers. `log_max` is in bytes; `operators`: see `check_host_network`."""

    tool_uid: int
    log_max: int
    operators: frozenset[int] = frozenset()


class StepController:
    """Reconciles this node's steps in the phases ready, starting and running."""

    def __init__(
        self,
        mirror: Mirror[Run],
        containers: ContainerMirror,
        logs: LogWriter,
        admission: Admission,
        *,
        slots: int,
        paths: HostPaths,
        installation: str,
        policy: ContainerPolicy,
        network: ToolNetwork,
        secrets: SecretDelivery,
        conditions: Conditions,
        metrics: RunnerMetrics,
        clock: Clock,
        tracing: Tracing | None = None,
        engine: EngineMonitor,
    ) -> None:
        self._engine = engine
        self.mirror = mirror
        self.containers = containers
        self.logs = logs
        self._admission = admission
        self.controller = Controller("steps", self.reconcile, conditions=conditions).watches(mirror)
        self.slots = SlotQueue(mirror, slots, self.controller.add, metrics.count_steps, self._needs_no_slot)
        self._driver: Driver = containers.driver
        self._paths = paths
        self._data_dir = DataDir(paths.data_dir)
        self._installation = installation
        self._policy = policy
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._clock = clock
        self._stopped: dict[StepAttempt, datetime] = {}
        self._seen_running: dict[StepAttempt, tuple[datetime, float]] = {}
        self._unstored_logs: dict[str, tuple[str, float]] = {}  # run → subject of its condition, retry delay
        self._removals: set[asyncio.Task[None]] = set()
        self._network = network
        self._secrets = secrets
        self._conditions = conditions
        containers.subscribe(self._container_changed)
        network.subscribe(self._enqueue_all)

    async def run(self) -> None:
        """Run until cancelled; the mirrors of runs and containers must be running.

        Runs that were in the mirror before this controller subscribed are reconciled as well.
        """
        await self.mirror.synced.wait()
        self._secrets.keep({name for name, _ in self.mirror.items()})
        self._enqueue_all()
        await self.controller.run()

    async def close(self) -> None:
        """Wait briefly for pending removals; containers that stay are found again by label."""
        if self._removals:
            await asyncio.wait(self._removals, timeout=REMOVE_TIMEOUT)
        for task in self._removals:
            task.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)

    async def reconcile(self, name: str) -> float | None:
        """Act on a run until nothing is left to do now; return the seconds until it is due again."""
        while True:
            stored = self.mirror.get(name)
            if stored is None or (index := runner_step(stored.record)) is None:
                self._clear_log_condition(name)
                self.slots.unpark(name)
                self._secrets.forget(name)
                return None
            key = StepAttempt(name, index, stored.record.steps[index].attempt)
            delay = await self._act(stored, key)
            if delay != NOW:
                return delay

    def _container_changed(self, container: Container | None) -> None:
        if container is None:
            self._enqueue_all()
        elif (key := labelled_attempt(container.labels)) is not None:
            self.controller.add(key.run)

    def _enqueue_all(self) -> None:
        self.slots.schedule_assignment()
        for name, _ in list(self.mirror.items()):
            self.controller.add(name)

    def _needs_no_slot(self, name: str, step: StepRun) -> bool:
        """Return True if the step waits for its log or may not start now, so that others get its slot."""
        if step.phase is StepPhase.READY or self.slots.is_parked(name):
            return not self._network.is_usable(step.spec.network)
        return name in self._unstored_logs

    def _observe(self, run: Run, key: StepAttempt) -> StepObservation:
        running = run.steps[key.step].phase is StepPhase.RUNNING
        container = self.containers.get(container_name(run.node, key))
        return StepObservation(
            step=run.steps[key.step],
            cancelled=run.cancel is not None,
            container=container if container is not None and self._belongs_to(container, key) else None,
            now=self._monotonic_now(key) if running else self._clock.now(),
            engine=self.containers.synced.is_set(),
            network=self._network.is_usable(run.steps[key.step].spec.network),
            parked=self.slots.is_parked(key.run),
            granted=self.slots.granted(key.run),
            ahead=self.slots.ahead(key.run),
            stopped_at=self._stopped.get(key),
        )

    def _monotonic_now(self, key: StepAttempt) -> datetime:
        """Return when the step was first seen running, plus the monotonic time since then."""
        seen, began = self._seen_running.setdefault(key, (self._clock.now(), time.monotonic()))
        return seen + timedelta(seconds=time.monotonic() - began)

    async def _act(self, stored: Stored[Run], key: StepAttempt) -> float | None:
        match plan.decide(self._observe(stored.record, key)):
            case plan.AwaitSlot(ahead):
                return await self._wait(stored, key, "slot", str(ahead))
            case plan.AwaitEngine():
                return await self._wait(stored, key, "engine")
            case plan.AwaitNetwork():
                if stored.record.steps[key.step].phase is StepPhase.STARTING:
                    self.slots.park(key.run)
                return await self._wait(stored, key, "network", self._network.problem.detail)
            case plan.Begin():
                step = stored.record.steps[key.step].move(StepPhase.STARTING, self._clock.now())
                with self.slots.taking(key.run):
                    return await self._write(stored, key, step)
            case plan.Launch():
                return await self._launch(stored, key)
            case plan.Confirm():
                return await self._confirm(stored, key)
            case plan.Cancel(container):
                step = stored.record.steps[key.step].move(StepPhase.CANCELLED, self._clock.now())
                return await self._leave(stored, key, step, container)
            case action:
                return await self._manage_started(stored, key, action)

    async def _manage_started(
        self, stored: Stored[Run], key: StepAttempt, action: plan.Action
    ) -> float | None:
        """Act on a container that has been started."""
        match action:
            case plan.NoteRunning(container):
                self.logs.ensure(key, container.id)
                step, now = stored.record.steps[key.step], self._clock.now()
                if (ready := step.times.get(StepPhase.READY)) is not None:
                    self._metrics.start_seconds.observe((now - ready).total_seconds())
                running = outcome.mark_running(step, container, now, self.containers.engine)
                return await self._write(stored, key, running)
            case plan.Watch(container, seconds):
                self.logs.ensure(key, container.id)
                return max(seconds, 0.01)
            case plan.Stop(container, grace):
                await self._driver.signal(container.id, "TERM")
                self._stopped[key] = self._monotonic_now(key)
                return grace
            case plan.Kill(container):
                await self._driver.signal(container.id, "KILL")
                return plan.KILL_RETRY
            case plan.RecordOutcome(container):
                return await self._record_outcome(stored, key, container)
            case _:
                return None

    async def _wait(
        self, stored: Stored[Run], key: StepAttempt, kind: WaitKind, detail: str = ""
    ) -> float | None:
        """Write why a step does not run yet, once per reason, since every write wakes all services."""
        step = stored.record.steps[key.step]
        reason = plan.waiting_reason(kind, detail)
        if step.phase is StepPhase.RUNNING or plan.is_same_reason(step.waiting, reason):
            return None
        waited = (self._clock.now() - step.times.get(step.phase, self._clock.now())).total_seconds()
        if waited < WAITING_SHOWN_AFTER:
            return WAITING_SHOWN_AFTER - waited + 0.01
        await self._write(stored, key, step.model_copy(update={"waiting": reason}))
        return None

    async def _launch(self, stored: Stored[Run], key: StepAttempt) -> float:
        """Create and start the container that the document requests, if the operator agreed to the step."""
        container = None
        self.slots.unpark(key.run)
        try:
            await self._admission.check(stored.record, key)
            spec = await self._container_spec(stored.record, key)
            current = self.mirror.get(key.run)
            if current is None or current.revision != stored.revision:
                return NOW  # the run has changed, and its container may already be gone
            container = await self._driver.create(spec)
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

    async def _container_spec(self, run: Run, key: StepAttempt) -> ContainerSpec:
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
                next="Run the pipeline again; the data manager creates a new workspace.",
            ) from error
        check_host_network(step.spec.network, step.spec.privileges, user, self._policy.operators)
        given = await self._secrets.give(key, step.spec)
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
            secret_env=given.env,
            secret_binds=given.binds,
        )

    async def _record_outcome(self, stored: Stored[Run], key: StepAttempt, container: Container) -> float:
        """Store the log, then write the phase, then remove the container."""
        try:
            stored_log = await self.logs.finish(key, container.id)
        except LogUnavailable as error:
            return await self._retry_log(stored, key, container, error)
        end = outcome.ContainerEnd(
            container=container,
            now=self._clock.now(),
            cancelled=stored.record.cancel is not None,
            stopped=key in self._stopped,
            tail=stored_log.tail,
            log_bytes=stored_log.size,
            log_sha256=stored_log.sha256,
            engine=self.containers.engine,
        )
        return await self._leave(
            stored, key, outcome.mark_ended(stored.record.steps[key.step], end), container
        )

    async def _retry_log(
        self, stored: Stored[Run], key: StepAttempt, container: Container, error: LogUnavailable
    ) -> float:
        """Keep the container, since it has the log, and free its slot; return the retry delay in seconds."""
        step = stored.record.steps[key.step]
        subject, delay = self._unstored_logs.get(key.run, (f"{key.run}/{step.spec.name}", LOG_RETRY))
        self._unstored_logs[key.run] = subject, min(delay * 2, MAX_LOG_RETRY)
        self.slots.schedule_assignment()
        self._conditions.report(
            LOG_CONDITION,
            subject,
            detail=f"The tool has ended, and its log is not stored yet: {error.detail}",
            next_step="Free space on the disk of the data directory, or fix the problem named here; it is "
            f"retried automatically. To abandon the step and its log: {self._driver.program} rm "
            f"{container.name}",
        )
        reason = f"has ended, and waits until its log is stored ({error.detail})"
        if not plan.is_same_reason(step.waiting, reason):
            await self._write(stored, key, step.model_copy(update={"waiting": reason}))
        return delay

    def _clear_log_condition(self, run: str) -> None:
        unstored = self._unstored_logs.pop(run, None)
        if unstored is not None:
            self._conditions.clear(LOG_CONDITION, unstored[0])

    async def _confirm(self, stored: Stored[Run], key: StepAttempt) -> float:
        """Query the engine for a container that the mirror does not have; without one the step is lost."""
        step = stored.record.steps[key.step]
        found = await self._driver.inspect(step.container_id or container_name(stored.record.node, key))
        if found is not None and not self._belongs_to(found, key):
            found = None  # the document names a container that was not created for it
        if found is not None and found.state != "created":
            self.containers.note(found)
            return NOW
        return await self._leave(stored, key, outcome.mark_lost(step, self._clock.now()), found)

    def _belongs_to(self, container: Container, key: StepAttempt) -> bool:
        ours = container.labels.get(INSTALLATION) == self._installation
        return ours and labelled_attempt(container.labels) == key

    async def _leave(
        self, stored: Stored[Run], key: StepAttempt, step: StepRun, container: Container | None
    ) -> float:
        """Write a phase that another service owns, then remove the container."""
        delay = await self._write(stored, key, step)
        if delay == NOW:
            self._stopped.pop(key, None)
            self._seen_running.pop(key, None)
            self._clear_log_condition(key.run)
            self.logs.forget(key)
            if container is not None:
                task = asyncio.create_task(self._remove(container))
                self._removals.add(task)
                task.add_done_callback(self._removals.discard)
        return delay

    async def _write(self, stored: Stored[Run], key: StepAttempt, step: StepRun) -> float:
        """Write the step if the run is still at the revision that was read; return NOW on success."""
        run = stored.record.with_step(key.step, step)
        revision = await self.mirror.records.replace(key.run, run, stored.revision)
        if revision is None:
            return CONFLICT_RETRY
        self.mirror.note(key.run, run, revision)
        if step.phase is stored.record.steps[key.step].phase:
            return NOW
        code = step.error.code if step.error else ""
        if self._tracing.is_on:
            self._tracing.record(phase_spans(run, key.step, stored.record.steps[key.step], step))
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
            **trace_facts(run),
        )
        return NOW

    async def _remove(self, container: Container) -> None:
        """Remove a container; if that fails, the clean-up retries."""
        try:
            await self._driver.remove(container.id)
            self.containers.forget(container.name)
        except Exception as error:  # noqa: BLE001 (the clean-up retries)
            log.warning("container.not_removed", container=container.name, error=str(error))
