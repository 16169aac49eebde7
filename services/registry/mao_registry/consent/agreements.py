"""Asynchronous access to the operator's agreements (files, see `mao_shared/agreements.py`), with migration.

Versions without agreements kept enrolments and trust in etcd alone. The first start of this version migrates
them, once: from then on, an enrolment without an agreement was written by somebody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mao_registry.records.stores import Repositories
from mao_shared.agreements import Agreement, AgreementFiles, step_digest
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import Enrolment, ResolvedStep
from mao_shared.reconcile import Backoff, until_done
from mao_shared.runs.listing import list_newest
from mao_shared.store import pages

log = get_logger(__name__)
T = TypeVar("T")
RUNS_PAGE = 100
MIGRATION_BACKOFF = Backoff(1.0, 1.0)  # seconds, while the store or the files cannot be read


class Agreements:
    """The operator's agreements. Calls raise Unavailable until the migration is done."""

    def __init__(
        self,
        files: AgreementFiles,
        repositories: Repositories,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self.files = files
        self._conditions = conditions
        self._repositories = repositories
        self._clock = clock
        self._migration = asyncio.Lock()
        self._migrated = False
        self._trust_lock = asyncio.Lock()

    async def run(self) -> None:
        """Migrate the enrolments of an earlier version as soon as the store answers."""
        await until_done(
            self._migrate,
            name="agreements",
            conditions=self._conditions,
            away=MIGRATION_BACKOFF,
            failing=MIGRATION_BACKOFF,
        )

    async def find(self, pipeline: str) -> Agreement | None:
        """Return the agreement; None if there is none or its file is unusable (a new one replaces it)."""
        await self._migrate()
        try:
            return await self._in_thread(lambda: self.files.read(pipeline))
        except MaoError as error:
            log.warning("agreements.unusable", pipeline=pipeline, error=error.detail)
            return None

    async def agree(self, enrolment: Enrolment) -> None:
        """Write the agreement durably. Raises MaoError (`agreement-unusable`)."""
        await self._migrate()
        await self._in_thread(lambda: self.files.agree(enrolment, self._clock.now()))

    async def withdraw(self, pipeline: str) -> bool:
        """Withdraw an agreement; return False if there is none. Raises MaoError (`agreement-unusable`)."""
        await self._migrate()
        return await self._in_thread(lambda: self.files.withdraw(pipeline))

    async def trusted(self) -> list[str]:
        """Return the nodes that are trusted both in etcd and in the file."""
        await self._migrate()
        stored = await self._repositories.trusts.all()
        in_file = await self._in_thread(self._read_trusted)
        return [trust.record.node for trust in stored if trust.record.node in in_file]

    async def set_trusted(self, node: str, *, trusted: bool) -> bool:
        """Add the node to the file of trusted nodes or remove it; return whether the file changed."""
        await self._migrate()

        def write() -> bool:
            before = self._read_trusted()
            after = before | {node} if trusted else before - {node}
            if after == before:
                return False
            self.files.trust(after)
            return True

        async with self._trust_lock:
            return await self._in_thread(write)

    def _read_trusted(self) -> set[str]:
        """Return the trusted nodes in the file; none if it is unusable."""
        try:
            return self.files.trusted()
        except MaoError as error:
            log.warning("agreements.unusable", error=error.detail)
            return set()

    async def _migrate(self) -> None:
        """Write agreements for the enrolments of an earlier version, once and before any other call."""
        async with self._migration:
            if self._migrated:
                return
            await self._in_thread(self.files.close)
            if not await self._in_thread(self.files.is_taken_over):
                enrolments = await self._repositories.enrolments.page()
                trusts = await self._repositories.trusts.page()
                enrolled = [stored.record for stored in enrolments.items]
                trusted = [stored.record.node for stored in trusts.items]
                earlier = await self._steps_of_runs()
                now = self._clock.now()
                await self._in_thread(lambda: self.files.take_over(enrolled, earlier, trusted, now))
                log.info("agreements.migrated", pipelines=[enrolment.pipeline for enrolment in enrolled])
            self._migrated = True

    async def _steps_of_runs(self) -> dict[str, list[ResolvedStep]]:
        """Return pipeline → distinct steps of its runs, newest first.

        Active runs and reproductions need an agreement to them.
        """
        by_pipeline: dict[str, dict[str, ResolvedStep]] = {}
        async for page in pages(lambda cursor: list_newest(self._repositories.runs, RUNS_PAGE, cursor)):
            for run in (stored.record for stored in page.items):
                steps = by_pipeline.setdefault(run.pipeline, {})
                for step in run.steps:
                    steps.setdefault(step_digest(run.node, run.pipeline, step.spec), step.spec)
        return {pipeline: list(steps.values()) for pipeline, steps in by_pipeline.items()}

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread; wait for it even if cancelled, so that writes keep their order."""
        work = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled() and (error := work.exception()):
                log.warning("agreements.failed", error=str(error))
            raise
