"""The files that hold what this node's operator has agreed to (`mao_shared/agreements.py`), for the registry.

A node of a version without agreements has its enrolments and trust in etcd alone. Its first start with this
version migrates them, once: from then on an enrolment without an agreement is one that somebody else wrote.
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
RETRY = 1.0  # seconds, while the store or the files cannot be read


class Agreements:
    """Calls raise Unavailable until the migration is done. Files are read and written off the event loop."""

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
        pace = Backoff(RETRY, RETRY)
        await until_done(
            self._migrate, name="agreements", conditions=self._conditions, away=pace, failing=pace
        )

    async def of(self, pipeline: str) -> Agreement | None:
        """Return the agreement; None also for an unusable file, which a new agreement replaces."""
        await self._migrate()
        try:
            return await self._off_loop(lambda: self.files.read(pipeline))
        except MaoError as error:
            log.warning("agreements.unusable", pipeline=pipeline, error=error.detail)
            return None

    async def agree(self, enrolment: Enrolment) -> None:
        """Write the agreement; it is on disk when this returns. Raises MaoError (`agreement-unusable`)."""
        await self._migrate()
        await self._off_loop(lambda: self.files.agree(enrolment, self._clock.now()))

    async def withdraw(self, pipeline: str) -> bool:
        """Withdraw an agreement; returns False if there is none. Raises MaoError (`agreement-unusable`)."""
        await self._migrate()
        return await self._off_loop(lambda: self.files.withdraw(pipeline))

    async def trusted(self) -> list[str]:
        """Return the trusted nodes, which are those both in etcd and in the file."""
        await self._migrate()
        stored = await self._repositories.trusts.all()
        in_file = await self._off_loop(self._read_trusted)
        return [trust.record.node for trust in stored if trust.record.node in in_file]

    async def trust(self, node: str, *, wanted: bool) -> bool:
        """Add the node to the file or remove it; returns whether the file has changed."""
        await self._migrate()

        def write() -> bool:
            before = self._read_trusted()
            after = before | {node} if wanted else before - {node}
            if after == before:
                return False
            self.files.trust(after)
            return True

        async with self._trust_lock:
            return await self._off_loop(write)

    def _read_trusted(self) -> set[str]:
        """Read the trusted nodes from the file; none if it is unusable, since others may have written it."""
        try:
            return self.files.trusted()
        except MaoError as error:
            log.warning("agreements.unusable", error=error.detail)
            return set()

    async def _migrate(self) -> None:
        """Migrate once, before any command: enrolments without files were agreed to in an earlier version."""
        async with self._migration:
            if self._migrated:
                return
            await self._off_loop(self.files.close)
            if not await self._off_loop(self.files.is_taken_over):
                enrolments = await self._repositories.enrolments.page()
                trusts = await self._repositories.trusts.page()
                enrolled = [stored.record for stored in enrolments.items]
                trusted = [stored.record.node for stored in trusts.items]
                earlier = await self._steps_of_runs()
                now = self._clock.now()
                await self._off_loop(lambda: self.files.take_over(enrolled, earlier, trusted, now))
                log.info("agreements.migrated", pipelines=[enrolment.pipeline for enrolment in enrolled])
            self._migrated = True

    async def _steps_of_runs(self) -> dict[str, list[ResolvedStep]]:
        """Return for each pipeline the distinct steps of its runs, newest first.

        Runs under way and reproductions need them.
        """
        found: dict[str, dict[str, ResolvedStep]] = {}
        async for page in pages(lambda cursor: list_newest(self._repositories.runs, RUNS_PAGE, cursor)):
            for run in (stored.record for stored in page.items):
                steps = found.setdefault(run.pipeline, {})
                for step in run.steps:
                    steps.setdefault(step_digest(run.node, run.pipeline, step.spec), step.spec)
        return {pipeline: list(steps.values()) for pipeline, steps in found.items()}

    async def _off_loop(self, call: Callable[[], T]) -> T:
        """Run in a thread; waits for it even if cancelled, so that writes keep their order."""
        work = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled() and (error := work.exception()):
                log.warning("agreements.failed", error=str(error))
            raise
