"""The components of the runner, how they are connected, and the order in which they start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from mao_shared.agreements import AgreementFiles
from mao_shared.clock import Clock, SystemClock
from mao_shared.conditions import Conditions
from mao_shared.errors import EngineUnavailable, MaoError, Unavailable
from mao_shared.host.data_dir import DataDir
from mao_shared.host.sealed import TOOL_KEYS, SealedSecrets
from mao_shared.keys import enrolments_prefix
from mao_shared.logs import get_logger
from mao_shared.metrics import Metrics
from mao_shared.models import Enrolment
from mao_shared.reconcile import Backoff, Mirror, recheck_unreadable, until_done
from mao_shared.runs.records import RunRecords
from mao_shared.store import Records, Store, Unreadable
from mao_shared.tracing import Tracing

from .compliance.checker import Checker, CheckPolicy
from .containers.admission import Admission
from .containers.cleanup import ContainerCleanup, LogRetention, LogRetentionPolicy
from .containers.controller import ContainerPolicy, StepController
from .containers.data_dir import HostPaths, find_host_paths
from .containers.engine import DATA_SUBJECT, ContainerMirror, EngineMonitor
from .containers.network import ToolNetwork
from .containers.plan import runner_step
from .drivers.protocol import Driver
from .labels import StepAttempt, installation_id, installation_labels
from .logs.reader import LogReader, RunNotifier
from .logs.writer import LogWriter
from .metrics import RunnerMetrics
from .secrets.delivery import SecretDelivery
from .secrets.kept import Secrets
from .settings import RunnerSettings

log = get_logger(__name__)

ENGINE_RETRY = 1.0  # seconds between attempts to reach the engine at start
HOST_DIR_RETRY = 10.0  # seconds between attempts to find the data directory on the engine's host


class Runner:
    """The runner of one node. Components that need the engine's answer are created in `run`.

    The constructor blocks briefly, and raises MaoError (`data-dir-unusable`).
    """

    def __init__(
        self,
        settings: RunnerSettings,
        store: Store,
        driver: Driver,
        metrics: Metrics,
        clock: Clock | None = None,
        conditions: Conditions | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.conditions = conditions or Conditions()
        self.driver = driver
        self._clock = clock or SystemClock()
        self._metrics = RunnerMetrics(metrics)
        self._tracing = tracing or Tracing()
        self._data_dir = settings.data_dir.absolute()
        self._installation = installation_id(self._data_dir)
        self._notifier = RunNotifier()
        self._unreadable = Unreadable(self.conditions)
        self._enrolments = Records(store, enrolments_prefix(settings.node), Enrolment)
        self.mirror = Mirror(
            RunRecords(store, settings.node, self._unreadable),
            lambda run: runner_step(run) is not None,
            conditions=self.conditions,
        )
        self.mirror.subscribe(self._notifier.moved)
        self.containers = ContainerMirror(driver, installation_labels(self._installation), self.conditions)
        keys = SealedSecrets(self._data_dir, TOOL_KEYS)
        self.secrets = Secrets(settings.node, store, keys, self._clock, self._unreadable)
        folder = settings.secrets_dir or Path(f"/dev/shm/mao-{self._installation[:16]}")  # noqa: S108 (checked)
        self._delivery = SecretDelivery(self.secrets, driver, folder)
        self.logs = LogWriter(
            driver, DataDir(self._data_dir), settings.log_max, self._notifier.grew, self._secret_values
        )
        self.network = ToolNetwork(
            driver,
            self.conditions,
            name=settings.tool_network_name,
            isolated=settings.tool_network == "isolated",
            installation=self._installation,
        )
        self.containers.subscribe(self._engine_back)
        self.reader = LogReader(self.mirror.records, DataDir(self._data_dir), self._notifier)
        self.engine_monitor = EngineMonitor(self.conditions, driver.ping, self.check_hostdir)
        files = AgreementFiles(settings.agreement_files())
        self.admission = Admission(files, settings.node, self.conditions, self._clock)
        self.steps: StepController | None = None
        self._checker: Checker | None = None
        self._not_ready: MaoError = EngineUnavailable(
            "The container engine has not answered since the runner started.", next="Run 'maoctl doctor'."
        )

    @property
    def checker(self) -> Checker:
        """Return the checker. Raises MaoError, with the reason, while the runner cannot start containers."""
        if self._checker is None:
            raise self._not_ready
        return self._checker

    @property
    def running(self) -> int:
        """Return the number of steps that hold a slot."""
        return self.steps.slots.holding() if self.steps is not None else 0

    async def check_hostdir(self) -> None:
        """Raise MaoError until the data directory was found on the engine's host (for readiness)."""
        if self.steps is None:
            raise self._not_ready

    async def run(self) -> None:
        """Run until cancelled. No step starts before the data directory was found on the engine's host."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.mirror.run())
            group.create_task(recheck_unreadable(self._unreadable))
            group.create_task(self.containers.run())
            group.create_task(self.containers.run_resync())
            group.create_task(self.network.run())
            group.create_task(self.engine_monitor.run())
            # Retried until they are valid: an engine that is starting answers with all kinds of errors.
            paths = await until_done(
                self._find_host_paths,
                name="data-directory",
                away=Backoff(ENGINE_RETRY, ENGINE_RETRY),
                failing=Backoff(HOST_DIR_RETRY, HOST_DIR_RETRY),
            )
            self._begin(paths, group)

    async def close(self) -> None:
        """Stop; containers continue and are adopted at the next start."""
        if self.steps is not None:
            await self.steps.close()
        await self.logs.close()

    def _engine_back(self, changed: object) -> None:
        """Have the network checked again: a restarted engine recreates its networks and rules."""
        if changed is None:
            self.network.invalidate(
                EngineUnavailable("the engine has just restarted", next="Run 'maoctl doctor'.")
            )

    async def _find_host_paths(self) -> HostPaths:
        try:
            return await find_host_paths(self.driver, self._data_dir, self.settings.hostdir)
        except Exception as error:
            before = str(self._not_ready)
            self._not_ready = error if isinstance(error, MaoError) else MaoError(str(error))
            if not isinstance(error, Unavailable) and str(error) != before:
                log.critical("hostdir.wrong", error=str(error), next=self._not_ready.next)
            raise

    def _begin(self, paths: HostPaths, group: asyncio.TaskGroup) -> None:
        settings = self.settings
        checks = CheckPolicy(
            settings.checks, settings.tool_uid, settings.operators(), self._clock.now, self._pins
        )
        self._checker = Checker(self.containers, self.logs, paths, self.network, checks)
        self.steps = StepController(
            self.mirror,
            self.containers,
            self.logs,
            self.admission,
            slots=settings.slots,
            paths=paths,
            installation=self._installation,
            policy=ContainerPolicy(settings.tool_uid, settings.log_max, settings.operators()),
            network=self.network,
            secrets=self._delivery,
            conditions=self.conditions,
            metrics=self._metrics,
            tracing=self._tracing,
            clock=self._clock,
            engine=self.engine_monitor,
        )
        active_checks = self._checker.active
        leftovers = ContainerCleanup(
            self.mirror,
            self.containers,
            grace=settings.leftover_grace,
            checks=lambda: active_checks,
            metrics=self._metrics,
            clock=self._clock,
            keep_log=self._keep_log,
            conditions=self.conditions,
        )
        age = timedelta(seconds=settings.log_retention)
        retention = LogRetentionPolicy(age, settings.log_keep, settings.log_space)
        old_logs = LogRetention(self.mirror, DataDir(self._data_dir), retention, self._clock, self.conditions)
        self.conditions.clear("engine", DATA_SUBJECT)  # at once, not at the next check
        log.info("runner.ready", hostdir=paths.host_dir, slots=settings.slots)
        for loop in (self.steps.run(), self.admission.run(), leftovers.run(), old_logs.run()):
            group.create_task(loop)

    async def _pins(self, image: str) -> dict[str, str]:
        """Return this node's pipelines that use an image of this name → the digest each has pinned."""
        return {
            stored.record.pipeline: step.image.pinned
            for stored in await self._enrolments.all()
            for step in stored.record.steps
            if step.image.name == image
        }

    async def _secret_values(self, key: StepAttempt) -> Sequence[str]:
        """Return the values to mask in the log of a step; all that there are if its run is unknown."""
        stored = self.mirror.get(key.run) or await self.mirror.records.find(key.run)
        refs = stored.record.steps[key.step].spec.secrets if stored is not None else None
        return await self.secrets.values_to_mask(refs) if refs != [] else ()

    async def _keep_log(self, key: StepAttempt, container_id: str) -> None:
        """Store the output of an unclaimed container before it is removed."""
        await self.logs.finish(key, container_id)
        self.logs.forget(key)
