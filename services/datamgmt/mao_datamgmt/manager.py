"""The data manager as one object: the operations that the routes call, and the background loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate

from fastapi import Request

import mao_git
from mao_git import RepositoryError
from mao_shared import keys
from mao_shared.clients.webhook import WebhookClient
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, MaoError
from mao_shared.host.sealed import SealedSecrets
from mao_shared.logs import get_logger
from mao_shared.metrics import Metrics
from mao_shared.models import (
    ControlMetric,
    Dataset,
    Enrolment,
    Listing,
    ResolvedStep,
    Run,
    Series,
    SharedDataset,
    Signer,
    dataset,
)
from mao_shared.models.dataset import (
    BareRepository,
    BareRequest,
    DatasetStatus,
    Resolution,
    SetAside,
    Strategy,
)
from mao_shared.models.node import Storage
from mao_shared.reconcile import Controller, Mirror, recheck_unreadable
from mao_shared.runs.records import RunRecords
from mao_shared.states import RUN_ENDED
from mao_shared.store import Records, Store, Stored, Unreadable
from mao_shared.tracing import Tracing
from mao_shared.web.dependencies import Attempt, once

from .backup.schedule import backup_loops
from .browse import datasets
from .browse.git_http import UploadPack
from .context import Context, make_context
from .datasets.broken import finish_moves
from .datasets.clones import (
    clone_remote_url,
    ensure_clone,
    init_bare,
    remove_unfinished,
    set_aside,
    sweep_clones,
)
from .datasets.health import HealthChecks
from .datasets.late_commits import LatePushes
from .datasets.push import Pusher
from .datasets.repair import CloneRepair
from .datasets.resolve import resolve
from .datasets.signers import Signers, allowed_line
from .disk import describe_storage
from .external.ingest import ExternalKeys, Ingest
from .external.insights import ToolDataset
from .git_executor import GitExecutor, P, Piece, T
from .metrics import DataMetrics
from .monitoring.alarms import Alarms
from .monitoring.analysis import RunAnalysis
from .monitoring.check_alarms import CheckAlarms
from .monitoring.open_alarms import OpenAlarms
from .monitoring.series import SeriesRecorder
from .monitoring.webhooks import Webhooks
from .notifications.service import Notifications
from .rounds.input_gate import skipped_alarm
from .rounds.participation import DatasetSharing
from .rounds.peer_records import PeerRecords, Voters
from .rounds.reporting import RoundOutcomes
from .rounds.service import RoundService
from .settings import DataSettings
from .steps.controller import StagingController
from .steps.quarantined import QuarantinedSnapshots
from .upkeep import Upkeep, log_swept

log = get_logger(__name__)


class DataManager:
    """The data manager's parts. `own` is the node's store, `federation` the store of dataset records."""

    def __init__(
        self,
        settings: DataSettings,
        context: Context,
        own: Store,
        federation: Store,
        metrics: DataMetrics,
        conditions: Conditions,
        tracing: Tracing,
    ) -> None:
        self.own, self.federation, self.context, self.conditions = own, federation, context, conditions
        self._settings, self.about = settings, settings.about()
        unreadable = self.unreadable = Unreadable(conditions)
        executor = self._executor = GitExecutor(settings.remote_threads)
        node, clock, seal = context.node, context.clock, SealedSecrets(context.data.root)

        # records and mirrors
        runs = self._runs = RunRecords(own, node, unreadable)
        datasets = Records(federation, keys.registry_prefix("datasets"), Dataset, unreadable)
        self._enrolments = Records(own, keys.enrolments_prefix(node), Enrolment, unreadable)
        self.series = Records(own, keys.series_prefix(node), Series, unreadable)
        self.mirror = Mirror(runs, keep=lambda run: run.phase not in RUN_ENDED, conditions=conditions)
        voters = Voters(federation, PeerRecords(federation, unreadable, conditions), unreadable, conditions)
        shared = Records(own, keys.shared_prefix(node), SharedDataset, unreadable)
        self.sharing = DatasetSharing(node, datasets, voters, shared)

        # datasets and their remotes
        late, retry = LatePushes(context, executor, runs), settings.push_retry
        self.repair = CloneRepair(
            context, executor, conditions, self._remote_url, late.unpushed_by_branch, retry
        )
        self.pusher = Pusher(context, executor, self._promotes, late, retry, metrics, conditions)
        self.health = HealthChecks(
            context, executor, conditions, timedelta(seconds=settings.outbox_alarm), self.pusher.failures
        )
        public_key = settings.public_signing_key()
        own_line = public_key and allowed_line(context.email, node, public_key)
        self.signers = Signers(
            node, Records(federation, keys.signers_prefix(), Signer, unreadable), own_line, conditions
        )
        self.upload_pack = UploadPack(context, executor, self.sharing.declared)
        self.ingest = Ingest(context, executor, ExternalKeys(datasets), self.pusher, settings, conditions)

        # monitoring
        self.alarms = Alarms(node, own, clock, unreadable)
        client = WebhookClient(hosts=settings.webhook_hosts.split(","), parts=settings.own_hosts())
        self.webhooks = Webhooks(node, own, clock, self.alarms, seal, client, unreadable, conditions)
        self.notifications = Notifications(
            settings, own, clock, self.alarms, seal, client, unreadable, conditions
        )
        recorder = SeriesRecorder(context, executor, self.series, self.alarms.raise_)
        self.analysis = RunAnalysis(
            runs,
            self.mirror,
            recorder,
            CheckAlarms(node, own, clock, unreadable),
            self.alarms.raise_,
            lambda run, step: skipped_alarm(run, step, step.waiting or "", clock.now()),
            clock,
            unreadable,
            conditions,
        )
        self.upkeep = Upkeep(settings, context, executor, self.mirror, self.alarms, conditions)

        self.open_alarms = OpenAlarms(
            node, own, lambda kind, number: metrics.alarms.labels(kind).set(number), unreadable, conditions
        )

        # rounds and steps
        self.rounds = RoundService(
            settings,
            context,
            executor,
            self.sharing,
            voters,
            self.mirror,
            own,
            federation,
            self.alarms.raise_,
            unreadable=unreadable,
            conditions=conditions,
        )
        RoundOutcomes(self.rounds.mirror, lambda outcome: metrics.rounds.labels(outcome).inc())
        self._steps = StagingController(
            context,
            self.mirror,
            executor,
            self.sharing,
            self.pusher,
            metrics,
            self.rounds.input_gate,
            self.analysis.requests,
            recorder.points,
            tracing,
        )
        self.quarantine = QuarantinedSnapshots(
            context,
            executor,
            runs,
            self.pusher,
            self.analysis.requests,
            self.rounds.announcer.reconsider,
            conditions,
        )
        self.controller = Controller("runs", self._steps.reconcile, conditions=conditions)
        self.controller.watches(self.mirror)
        self._steps.waits.wake = self.controller.add
        self._steps.waits.follow(self.mirror, self.rounds.mirror, voters)
        metrics.external_waiting.set_function(lambda: sum(self.ingest.inbox.waiting().values()))
        metrics.free_bytes.set_function(lambda: describe_storage(context).disk.free)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run while the app is up."""
        backups = backup_loops(
            self._settings, self.context, self._executor, self.own, self._runs, self.conditions
        )
        return [
            self.mirror.run(),
            self.controller.run(),
            self.pusher.run(),
            self.repair.run(),
            self.quarantine.run(),
            self.upkeep.run(),
            self.ingest.run(),
            self.signers.run(),
            *self.analysis.loops(),
            self.webhooks.run(),
            *self.open_alarms.loops(),
            *self.notifications.loops(),
            self.health.run(),
            recheck_unreadable(self.unreadable),
            *backups,
            *self.rounds.loops(),
        ]

    def close(self) -> None:
        self._executor.close()

    # queries and commands

    async def ensure_dataset(self, dataset: Dataset) -> DatasetStatus:
        """Ensure that a dataset has a clone; see `clones.ensure_clone`."""
        await self._executor.write([dataset.name], ensure_clone, self.context, dataset.name, dataset.master)
        return await self.status(dataset.name)

    async def status(self, name: str) -> DatasetStatus:
        """Return a dataset's status. Raises NotFound; a clone that cannot be read is repaired first."""
        show = partial(datasets.dataset_status, self.context, name)
        try:
            return await self._executor.query(show, self.pusher.failures.get(name))
        except (mao_git.CloneBroken, RepositoryError, OSError) as error:
            if await self._executor.inspect(name) is None:
                raise
            log.warning("status.clone_broken", dataset=name, error=str(error))
        return await self._executor.query(show, self.pusher.failures.get(name))

    async def acknowledge(self, name: str) -> DatasetStatus:
        """Acknowledge rewound branches and a broken clone; see `RewoundBranches.acknowledge`."""
        await self.health.rewound.acknowledge(name, self.repair.acknowledge)
        return await self.status(name)

    async def _remote_url(self, name: str) -> str | None:
        """Return a dataset's remote from this node's active runs or enrolments, or None."""
        runs = [stored.record for _, stored in self.mirror.items()]
        steps = [step.spec for run in runs for step in run.steps]
        try:
            steps += [step for enrolled in await self._enrolments.all() for step in enrolled.record.steps]
        except MaoError as error:  # the runs may still name it
            log.warning("clone.master_unknown", dataset=name, error=str(error))
        named = (ref for step in steps for ref in (step.output, step.input) if ref is not None)
        return next((ref.master for ref in named if ref.name == name), None)

    async def push_now(self, name: str) -> DatasetStatus:
        """Push unpushed commits at once instead of after the retry pause. Raises NotFound."""
        await self.pusher.push_now(name)
        return await self.status(name)

    async def _promotes(self, name: str) -> bool:
        """True if this node's snapshot of a dataset becomes ground truth without a round."""
        return await self.sharing.is_solo(name) or await self.sharing.obstacle(name) is None

    async def go_alone(self, name: str) -> DatasetStatus:
        """Leave the rounds of a dataset, see `DatasetSharing.go_alone`, and push ground truth."""
        await self.status(name)  # raises NotFound without a clone
        await self.sharing.go_alone(name)
        self.rounds.announcer.forget(name)
        log.info("dataset.alone", dataset=name)
        return await self.push_now(name)

    async def resolve(self, name: str, how: Strategy) -> Resolution:
        """Resolve a conflict, see `resolve.resolve`; a failed push is retried later."""
        promote = await self._promotes(name)
        result, failure = await self._executor.write([name], resolve, self.context, name, how, promote)
        if failure is None:
            self.pusher.note_pushed(name)
        else:
            self.pusher.push_later(name, failure)
        log.info("branch.resolved", dataset=name, how=how, commit=result.commit, pushed=result.pushed)
        return result

    async def set_aside(self, name: str) -> SetAside:
        """Set a clone aside, see `clones.set_aside`. Raises Conflict (`dataset-in-use`) if it is in use."""
        remote = await self._executor.read(clone_remote_url, self.context, name)
        enrolled = [stored.record for stored in await self._enrolments.all()]
        uses = [f"pipeline {enrolment.pipeline}" for enrolment in enrolled if _uses(enrolment.steps, name)]
        active = [(run, stored.record) for run, stored in self.mirror.items()]
        uses += [
            f"run {run}" for run, document in active if _uses([step.spec for step in document.steps], name)
        ]
        declared = await self.sharing.declared(name)
        if declared is not None and declared.master == remote:
            uses.append(f"dataset {name}, which is registered with the clone's remote {remote}")
        if uses:
            raise Conflict(
                f"The clone of {name!r} is in use by {', '.join(uses[:5])}.",
                code="dataset-in-use",
                next="Withdraw the pipeline, wait for the run, or remove the dataset first.",
            )
        result = await self._executor.write([name], set_aside, self.context, name)
        self.pusher.note_pushed(name)
        return result

    async def statuses(self, limit: int, cursor: str | None) -> Listing[DatasetStatus]:
        return await self._executor.query(
            datasets.list_statuses, self.context, self.pusher.failures, limit, cursor
        )

    async def commits(
        self, name: str, branch: str | None, limit: int, cursor: str | None
    ) -> Listing[dataset.CommitInfo]:
        return await self._executor.query(datasets.list_commits, self.context, name, branch, limit, cursor)

    async def files(
        self,
        name: str,
        ref: str | None,
        path: str,
        limit: int,
        cursor: str | None,
        *,
        details: bool = False,
    ) -> Listing[dataset.FileInfo]:
        return await self._executor.query(
            datasets.list_files, self.context, name, ref, path, limit, cursor, details=details
        )

    async def query(
        self, function: Callable[Concatenate[Context, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a blocking function that only reads, in a thread of `GitExecutor.query`."""
        return await self._executor.query(function, self.context, *args, **kwargs)

    def stream(self, pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
        """Stream pieces; see `GitExecutor.stream`."""
        return self._executor.stream(pieces)

    async def find_run(self, run_id: str) -> Run | None:
        """Return the run's document, or None if it was removed from the store."""
        stored = await self._runs.get(run_id)
        return None if stored is None else stored.record

    async def sources(self) -> list[ToolDataset]:
        """Return the tools that this node runs, each with a dataset that it writes to."""
        enrolled = await self._enrolments.all()
        return [(step.tool, step.output.name) for enrolment in enrolled for step in enrolment.record.steps]

    async def metrics_of(self, dataset: str) -> list[ControlMetric]:
        """Return the control metrics of the steps by which this node writes to a dataset."""
        enrolled = await self._enrolments.all()
        steps = [
            step for enrolment in enrolled for step in enrolment.record.steps if step.output.name == dataset
        ]
        return [metric for step in steps for metric in step.metrics]

    async def storage(self) -> Storage:
        return await self._executor.read(describe_storage, self.context)

    async def init_bare(self, request: BareRequest, key: str | None) -> BareRepository:
        """Create a local remote. Raises AlreadyExists unless an attempt with the same key created it."""

        async def make(attempt: Attempt) -> Stored[BareRepository]:
            created = await self._executor.read(
                init_bare, self.context.data, request.name, name_was_free=attempt.name_was_free
            )
            return Stored(created, 0)

        async def taken() -> bool:
            return await self._executor.read(self.context.data.bare(request.name).is_dir)

        node = self.context.node
        created = await once(self.own, node, "bare.init", key, request, BareRepository, make, taken=taken)
        return created.record


def _uses(steps: Iterable[ResolvedStep], dataset: str) -> bool:
    return any(step.output.name == dataset or (step.input and step.input.name == dataset) for step in steps)


def build(
    settings: DataSettings,
    own: Store,
    federation: Store,
    metrics: Metrics,
    conditions: Conditions | None = None,
    tracing: Tracing | None = None,
) -> DataManager:
    """Build the data manager: configure libgit2, and remove unfinished repositories."""
    context = make_context(settings)
    mao_git.configure(
        context.data.root / "git-home",
        settings.ssh_dir,
        connect=settings.remote_connect_timeout,
        silence=settings.remote_silence_timeout,
    )
    finish_moves(context)
    remove_unfinished(context.data)
    log_swept(sweep_clones(context.data))
    return DataManager(
        settings,
        context,
        own,
        federation,
        DataMetrics(metrics),
        conditions or Conditions(),
        tracing or Tracing(),
    )


async def get_manager(request: Request) -> DataManager:
    """Return the data manager of the app that handles a request."""
    manager = request.app.state.manager
    if not isinstance(manager, DataManager):
        raise TypeError("the app was not made by make_app")
    return manager
