"""What this node's operator has agreed to, as the registry writes it down (`mao_shared/agreements.py`).

A node of a version without agreements has enrolments and trust in etcd alone. Its first start with this
version takes them over, once: from then on an enrolment without an agreement is one that somebody else wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mao_registry.records.repositories import Repositories
from mao_shared.agreements import Agreement, AgreementFiles, step_digest
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.models import Enrolment, ResolvedStep
from mao_shared.reconcile import Backoff, until_done
from mao_shared.runs.listing import list_newest

log = get_logger(__name__)
T = TypeVar("T")
PAGE = 100  # runs read at a time
TRY_AGAIN = 1.0  # seconds until a store or a folder is asked again


class Agreements:
    """The files, off the event loop. Calls raise Unavailable until the first start's work can be done."""

    def __init__(
        self, files: AgreementFiles, shelf: Repositories, clock: Clock, conditions: Conditions | None = None
    ) -> None:
        self.files = files
        self._conditions = conditions
        self._shelf = shelf
        self._clock = clock
        self._taking_over = asyncio.Lock()
        self._trusting = asyncio.Lock()
        self._taken_over = False

    async def run(self) -> None:
        """Takes over what a node of an earlier version has, as soon as its store answers."""
        pace = Backoff(1.0, TRY_AGAIN)
        await until_done(
            self._take_over, name="agreements", conditions=self._conditions, away=pace, failing=pace
        )

    async def of(self, pipeline: str) -> Agreement | None:
        """What was agreed to; None also for a file that nobody can rely on: agreeing again mends it."""
        await self._take_over()
        try:
            return await self._off_loop(lambda: self.files.read(pipeline))
        except MaoError as error:
            log.warning("agreements.unusable", pipeline=pipeline, error=error.detail)
            return None

    async def agree(self, enrolment: Enrolment) -> None:
        """On disk when this returns. Raises MaoError (`agreement-unusable`)."""
        await self._take_over()
        await self._off_loop(lambda: self.files.agree(enrolment, self._clock.now()))

    async def withdraw(self, pipeline: str) -> bool:
        """Whether there was something to withdraw. Raises MaoError (`agreement-unusable`)."""
        await self._take_over()
        return await self._off_loop(lambda: self.files.withdraw(pipeline))

    async def trusted(self) -> list[str]:
        """Nodes that the operator trusts: those in etcd that are in the file as well."""
        await self._take_over()
        stored = await self._shelf.trusts.all()
        own = await self._off_loop(self._trusted)
        return [each.record.node for each in stored if each.record.node in own]

    async def trust(self, node: str, *, wanted: bool) -> bool:
        """Puts the node into the file, or takes it out; whether that is news."""
        await self._take_over()
        async with self._trusting:
            return await self._off_loop(lambda: self._trust(node, wanted))

    def _trusted(self) -> set[str]:
        """Nobody where the file cannot be relied on: what others could have written counts for nothing."""
        try:
            return self.files.trusted()
        except MaoError as error:
            log.warning("agreements.unusable", error=error.detail)
            return set()

    def _trust(self, node: str, wanted: bool) -> bool:
        before = self._trusted()
        after = before | {node} if wanted else before - {node}
        if after == before:
            return False
        self.files.trust(after)
        return True

    async def _take_over(self) -> None:
        """Also where a command comes first: what it finds enrolled was agreed to before there were files."""
        async with self._taking_over:
            if self._taken_over:
                return
            await self._off_loop(self.files.close)
            if not await self._off_loop(self.files.is_taken_over):
                enrolments = await self._shelf.enrolments.page()
                trusts = await self._shelf.trusts.page()
                enrolled = [stored.record for stored in enrolments.items]
                trusted = [stored.record.node for stored in trusts.items]
                earlier = await self._steps_of_runs()
                now = self._clock.now()
                await self._off_loop(lambda: self.files.take_over(enrolled, earlier, trusted, now))
                log.info("agreements.taken_over", pipelines=[each.pipeline for each in enrolled])
            self._taken_over = True

    async def _steps_of_runs(self) -> dict[str, list[ResolvedStep]]:
        """Pipeline → the different steps of its runs, newest first: those under way, and to be reproduced."""
        found: dict[str, dict[str, ResolvedStep]] = {}
        cursor = None
        while True:
            page = await list_newest(self._shelf.runs, PAGE, cursor)
            for run in (stored.record for stored in page.items):
                steps = found.setdefault(run.pipeline, {})
                for step in run.steps:
                    steps.setdefault(step_digest(run.node, run.pipeline, step.spec), step.spec)
            cursor = page.cursor
            if cursor is None:
                return {pipeline: list(steps.values()) for pipeline, steps in found.items()}

    async def _off_loop(self, call: Callable[[], T]) -> T:
        """A caller that is cancelled waits as well: a write is not to overtake the next one."""
        working = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            if not working.cancelled() and (error := working.exception()):
                log.warning("agreements.failed", error=str(error))
            raise
