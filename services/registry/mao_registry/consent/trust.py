"""Trusted nodes, and the controller that approves the changes they endorse."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

from mao_registry.records.repositories import Repositories
from mao_registry.records.writes import retry_lost_races
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, Conflict, MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Trust
from mao_shared.reconcile import Backoff, Guard, every, wait_at_most
from mao_shared.store.records import StoredPage

from .agreements import Agreements
from .approvals import Approvals

log = get_logger(__name__)
SETTLE = 1.0  # seconds that changes are gathered
RESYNC = 300.0  # seconds between looks without a hint: an image may be there by now
RETRY = 5.0  # seconds, while the federation does not answer


class TrustController:
    """Whom this node's operator trusts, and the loop that acts on it."""

    def __init__(
        self,
        shelf: Repositories,
        agreements: Agreements,
        consent: Approvals,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("consent", conditions, Backoff(RETRY, 300.0))
        self.shelf = shelf
        self.agreements = agreements
        self.consent = consent
        self.clock = clock
        self._hint = asyncio.Event()
        self._told: dict[str, str] = {}  # pipeline → why it was not taken over, so that it is logged once

    async def page(self) -> StoredPage[Trust]:
        """All that the operator has named, with those that cannot be read."""
        trusted = await self.agreements.trusted()
        page = await self.shelf.trusts.page()
        kept = [each for each in page.items if each.record.node in trusted]
        return replace(page, items=kept)

    async def trust(self, node: str) -> Trust:
        """The same when it is trusted already."""

        async def attempt() -> Trust | None:
            if there := await self.shelf.trusts.get(node):
                return there.record
            made = Trust(node=node, since=self.clock.now())
            return made if await self.shelf.trusts.create(node, made) else None

        await self.agreements.trust(node, wanted=True)
        trusted = await retry_lost_races(attempt, f"the trust in {node!r}")
        self._hint.set()
        return trusted

    async def untrust(self, node: str) -> None:
        """What was taken over stays. Raises NotFound."""
        news = await self.agreements.trust(node, wanted=False)
        if not await self.shelf.trusts.delete(node) and not news:
            raise NotFound(
                f"The node {node!r} is not trusted.", code="not-trusted", next="See 'maoctl node trusted'."
            )

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            for name, step in (("consent-watch", self._watch), ("consent", self._look_soon)):
                group.create_task(
                    every(0.0, step, name=name, conditions=self._conditions, away=Backoff(RETRY, 5.0))
                )

    async def _watch(self) -> None:
        prefix = keys.registry_prefix("tools").removesuffix("tools/")
        store = self.shelf.federation
        after = (await store.list(prefix, limit=1)).revision
        self._hint.set()
        with suppress(Compacted):
            async with aclosing(store.watch(prefix, after=after)) as batches:
                async for _ in batches:
                    self._hint.set()

    async def _look_soon(self) -> None:
        await wait_at_most(self._hint, RESYNC)
        await asyncio.sleep(SETTLE)
        self._hint.clear()
        await self.look()

    async def look(self) -> None:
        """Takes over what may be; whatever keeps one pipeline back does not keep the others."""
        if not await self.agreements.trusted():
            self._guard.keep(set())
            return
        pipelines = [stored.record.pipeline for stored in (await self.shelf.enrolments.page()).items]
        self._guard.keep(set(pipelines))
        for pipeline in pipelines:
            await self._consider(pipeline)

    async def _consider(self, name: str) -> None:
        try:
            made = await self.consent.take_over(name)
        except Unavailable as error:
            self._tell(name, error)
        except MaoError as error:  # a refusal: no fault any more
            self._guard.worked(name)
            if not isinstance(error, Conflict) or error.code != "nothing-pending":
                self._tell(name, error)
        except Exception as error:  # noqa: BLE001 (of what others have registered)
            self._guard.failed(name, error)
        else:
            self._told.pop(name, None)
            self._guard.worked(name)
            log.info("consent.taken_over", pipeline=name, approved_by=made.record.approved_by)

    def _tell(self, name: str, error: MaoError) -> None:
        if self._told.get(name) != error.detail:
            self._told[name] = error.detail
            log.info("consent.pending", pipeline=name, code=error.code, why=error.detail)
