"""The trusted nodes, and the controller that approves the changes they endorse."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from mao_registry.records.stores import OUTAGE_BACKOFF, Repositories
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Trust
from mao_shared.reconcile import Backoff, Guard, every, follow
from mao_shared.store.records import StoredPage

from .agreements import Agreements
from .approvals import Approvals

log = get_logger(__name__)
SETTLE_TIME = 1.0  # seconds during which changes are collected
RESYNC_PERIOD = 300.0  # seconds between runs without a change, since an image may be available by now


class TrustController:
    """Approves endorsed changes: after every change of a shared record, and every RESYNC_PERIOD."""

    def __init__(
        self,
        repositories: Repositories,
        agreements: Agreements,
        approvals: Approvals,
        clock: Clock,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("consent", conditions, Backoff(5.0, 300.0))
        self.repositories = repositories
        self.agreements = agreements
        self.approvals = approvals
        self.clock = clock
        self._wake = asyncio.Event()
        self._logged: dict[str, str] = {}  # pipeline → last logged reason for not approving it

    async def page(self) -> StoredPage[Trust]:
        """Return the trusted nodes, and the trust records that cannot be read."""
        trusted = await self.agreements.trusted()
        page = await self.repositories.trusts.page()
        return replace(page, items=[stored for stored in page.items if stored.record.node in trusted])

    async def trust(self, node: str) -> Trust:
        """Trust a node: approve the changes that it endorses from now on. Idempotent."""
        await self.agreements.set_trusted(node, trusted=True)
        new = Trust(node=node, since=self.clock.now())
        stored = await self.repositories.trusts.create_or_update(node, lambda current: current or new)
        self._wake.set()
        return stored.record if stored else new

    async def untrust(self, node: str) -> None:
        """Stop trusting a node; approved changes stay approved. Raises NotFound (`not-trusted`)."""
        changed = await self.agreements.set_trusted(node, trusted=False)
        if not await self.repositories.trusts.delete(node) and not changed:
            raise NotFound(
                f"The node {node!r} is not trusted.", code="not-trusted", next="See 'maoctl node trusted'."
            )

    async def run(self) -> None:
        """Run until cancelled."""
        prefix = keys.registry_prefix("tools").removesuffix("tools/")
        async with asyncio.TaskGroup() as group:
            group.create_task(
                follow(
                    self.repositories.federation,
                    prefix,
                    lambda _: self._wake.set(),
                    name="consent-watch",
                    conditions=self._conditions,
                    away=OUTAGE_BACKOFF,
                )
            )
            group.create_task(
                every(
                    RESYNC_PERIOD,
                    self.reconcile,
                    name="consent",
                    wake=self._wake,
                    initial_delay=RESYNC_PERIOD,
                    debounce=SETTLE_TIME,
                    conditions=self._conditions,
                    away=OUTAGE_BACKOFF,
                )
            )

    async def reconcile(self) -> None:
        """Approve endorsed changes of all enrolments; a failure of one does not block the others."""
        if not await self.agreements.trusted():
            self._guard.keep(set())
            return
        pipelines = [stored.record.pipeline for stored in await self.repositories.enrolments.all()]
        self._guard.keep(set(pipelines))
        for name in pipelines:
            try:
                enrolment = (await self.approvals.auto_approve(name)).record
            except Unavailable as error:
                self._log_once(name, error)
            except MaoError as error:  # a refusal is not a failure
                self._guard.succeeded(name)
                if error.code != "nothing-pending":
                    self._log_once(name, error)
            except Exception as error:  # noqa: BLE001 (caused by what others have registered)
                self._guard.failed(name, error)
            else:
                self._logged.pop(name, None)
                self._guard.succeeded(name)
                log.info("consent.auto_approved", pipeline=name, approved_by=enrolment.approved_by)

    def _log_once(self, name: str, error: MaoError) -> None:
        if self._logged.get(name) != error.detail:
            self._logged[name] = error.detail
            log.info("consent.pending", pipeline=name, code=error.code, why=error.detail)
