"""The controller of a federation member: certificate, endpoints, etcd member, others' requests.

For itself: its certificate is renewed after two thirds of its life, its link follows the core nodes, its seat
in etcd follows its identity. A core node also does what the others need of one (`asked.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from mao_registry.records.writes import update_record
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, MaoError, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models import Identity, Link
from mao_shared.reconcile import Backoff, Guard, every, wait_at_most
from mao_shared.store import Store

from .access import roles_of
from .context import LINK, FederationContext, FederationRecords, via_other_cores
from .cores import (
    Action,
    complete_join,
    decide_action,
    demote_node,
    remove_node,
    request_digest,
    sign_request,
)
from .etcd_versions import EtcdVersions
from .join import pending_request, submit_request
from .own_member import join_etcd, leave_etcd
from .pki import needs_renewal

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
RESYNC_PERIOD = 60.0  # seconds between looks when nothing seems to change
FAILURE_RETRY = 2.0  # seconds
REFUSED_RETRY = 10.0  # seconds after what another try will hardly mend


class FederationController:
    """`federation` is only watched; what is decided on is read from the federation's etcd itself, never from
    copies of what it once held."""

    def __init__(
        self,
        site: FederationContext,
        federation: Store,
        versions: EtcdVersions,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("federation", conditions, Backoff(REFUSED_RETRY, 300.0))
        self.site = site
        self.versions = versions
        self.federation = federation
        self._wake = asyncio.Event()
        self._outage = Outage()

    async def run(self) -> None:
        """For ever."""
        watched = (
            keys.certificate_requests_prefix(),
            keys.identities_prefix(),
            keys.cores_prefix(),
            keys.members_prefix(),
        )
        async with asyncio.TaskGroup() as group:
            for prefix in watched:
                group.create_task(self._wake_on(prefix))
            group.create_task(every(0.0, self._look_again, name="federation", conditions=self._conditions))

    async def _wake_on(self, prefix: str) -> None:
        async def watch() -> None:
            try:
                revision = (await self.federation.list(prefix, limit=1)).revision
                self._wake.set()
                async with contextlib.aclosing(self.federation.watch(prefix, after=revision)) as changes:
                    async for _ in changes:
                        self._wake.set()
            except Compacted:
                return
            except MaoError as error:  # a refusal is no fault either: the node may have been struck off
                log.debug("federation.not_watched", prefix=prefix, error=error.detail)
                await asyncio.sleep(FAILURE_RETRY)

        await every(0.0, watch, name=f"federation-watch/{prefix}", conditions=self._conditions)

    async def _look_again(self) -> None:
        self._wake.clear()
        try:
            pause = await self.look()
            self._outage.over()
        except MaoError as error:  # that it is told no is no fault of this node
            pause = FAILURE_RETRY if isinstance(error, Unavailable) else REFUSED_RETRY
            if self._outage.is_news():
                log.warning("federation.upkeep_waits", error=error.detail)
        await wait_at_most(self._wake, pause)

    async def look(self) -> float:
        """Does what is to be done now; seconds after which to look again at the latest."""
        stored = await self.site.link()
        if stored is None:
            self.versions.look_alone()
            return RESYNC_PERIOD
        link, endpoints = stored.record, ",".join(stored.record.endpoints)
        async with self.site.joined(endpoints) as store, self.site.admin(endpoints) as admin:
            mine = await FederationRecords(store).identities.get(link.node)
            if mine is None or mine.record.state == "removed":
                return RESYNC_PERIOD
            await self._keep_certificate(store, mine.record)
            await self._follow_cores(store, link)
            pause = await self._keep_seat(store, admin, link, mine.record)
            await self.versions.look(await FederationRecords(store).cores.by_name())
            if mine.record.role == "core" and await FederationRecords(store).cores.get(link.node):
                done = await self._serve(store, admin, link)
                pause = pause if done or pause is not None else REFUSED_RETRY
        return RESYNC_PERIOD if pause is None else pause

    async def _keep_certificate(self, store: Store, identity: Identity) -> None:
        folder = self.site.folder
        ca, there, pending = folder.read(folder.ca), folder.read(folder.identity), folder.read_pending()
        if not ca or not there:
            return
        if (
            pending is not None
            and identity.certificate
            and identity.request == request_digest(pending.request)
        ):
            await self._install(identity, ca, pending.key)
        elif needs_renewal(there, ca, self.site.now):
            await submit_request(self.site, store, pending_request(self.site, identity.user))

    async def _install(self, identity: Identity, ca: str, key: str) -> None:
        folder = self.site.folder
        folder.write_identity(ca=ca, certificate=identity.certificate or "", key=key)
        await update_record(
            self.site.links,
            LINK,
            lambda link: link and link.model_copy(update={"generation": link.generation + 1}),
        )
        folder.pending.unlink(missing_ok=True)
        log.info("federation.certificate_renewed", user=identity.user, until=identity.expires_at)

    async def _follow_cores(self, store: Store, link: Link) -> None:
        cores = [
            core for core in (await FederationRecords(store).cores.by_name()).values() if not core.learner
        ]
        # A core node asks its own etcd first.
        endpoints = [
            core.client for core in sorted(cores, key=lambda each: (each.node != link.node, each.node))
        ]
        if endpoints and endpoints != link.endpoints:
            await update_record(
                self.site.links, LINK, lambda now: now and now.model_copy(update={"endpoints": endpoints})
            )

    async def _keep_seat(self, store: Store, admin: Admin, link: Link, identity: Identity) -> float | None:
        if identity.role == "core":
            return await join_etcd(self.site, store, admin, link)
        if self.site.folder.read(self.site.folder.etcd_config) is not None:
            return await leave_etcd(self.site, store, admin, link)
        return None

    async def _serve(self, store: Store, admin: Admin, link: Link) -> bool:
        """Whether all requests that had to be signed were answered."""
        ledger, done = FederationRecords(store), True
        requests = await ledger.requests.by_name()  # not by the name inside: any member could give another's
        present = await ledger.members.by_name()
        listed = set(await ledger.cores.by_name())
        identities = (await ledger.identities.page()).items
        self._guard.keep({stored.record.node for stored in identities})
        for stored in identities:
            identity = stored.record
            node = identity.node
            action = decide_action(
                identity, requests.get(node), present=node in present, listed=node in listed
            )
            if action == "sign":
                signing = sign_request(self.site, store, admin, stored, requests[node])
                done = await self._apart(action, node, signing) and done
            elif action is not None and node != link.node:
                await self._apart(action, node, self._act(action, link, identity))
        return done

    async def _act(self, action: Action, link: Link, identity: Identity) -> None:
        async with via_other_cores(self.site, link, identity.node) as (store, admin):
            if action == "finish":
                await complete_join(self.site, store, admin, identity)
            elif action == "strike":
                await remove_node(self.site, store, admin, identity)
            elif action == "unseat":
                await demote_node(self.site, store, admin, identity)
            elif action == "empower":
                await admin.set_roles(identity.user, roles_of(identity))

    async def _apart(self, action: Action, node: str, doing: Awaitable[None]) -> bool:
        """Whether it was done: one node's trouble, or what it has written, does not hold up the others."""
        try:
            await doing
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 (of one node's record)
            log.warning("federation.not_done", node=node, action=action)
            self._guard.failed(node, error)
            return False
        self._guard.worked(node)
        return True
