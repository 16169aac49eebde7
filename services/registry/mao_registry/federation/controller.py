"""The controller of a federation member. It runs at startup, after every change, and once a minute.

For this node, it renews the certificate after two thirds of its lifetime, updates the link's endpoints to the
core nodes' addresses, and starts or stops the etcd member by the node's role. On a core node it also serves
the other nodes (`cores.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import Outage, get_logger
from mao_shared.models import Identity, Link
from mao_shared.reconcile import Backoff, Guard, every, follow
from mao_shared.store import Store

from .access import etcd_role_names
from .context import LINK, FederationContext, FederationRecords
from .cores import Action, complete_join, decide_action, demote_node, request_digest, sign_request
from .departure import remove_node
from .etcd_versions import EtcdVersions
from .join import pending_request, submit_request
from .own_member import join_etcd, leave_etcd
from .pki import needs_renewal

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
RESYNC_PERIOD = 60.0  # seconds between runs without a change
OUTAGE_RETRY = 2.0  # seconds, while the federation does not answer
REFUSED_RETRY = 10.0  # seconds; a retry is unlikely to change a refusal


class FederationController:
    """Keeps this node's membership up to date, and on a core node that of the others.

    `federation` is only watched, since it may be a replica; decisions use the federation's etcd itself.
    """

    def __init__(
        self,
        context: FederationContext,
        federation: Store,
        versions: EtcdVersions,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("federation", conditions, Backoff(REFUSED_RETRY, 300.0))
        self.context = context
        self.versions = versions
        self.federation = federation
        self._wake = asyncio.Event()
        self._outage = Outage()

    async def run(self) -> None:
        """Run until cancelled."""
        watched = (
            keys.certificate_requests_prefix(),
            keys.identities_prefix(),
            keys.cores_prefix(),
            keys.members_prefix(),
        )
        async with asyncio.TaskGroup() as group:
            for prefix in watched:
                group.create_task(
                    follow(
                        self.federation,
                        prefix,
                        lambda _: self._wake.set(),
                        name=f"federation-watch/{prefix}",
                        conditions=self._conditions,
                        away=Backoff(OUTAGE_RETRY, REFUSED_RETRY),
                        outages=MaoError,  # a refusal is not a failure: the node may have been removed
                    )
                )
            group.create_task(
                every(
                    RESYNC_PERIOD,
                    self._step,
                    name="federation",
                    wake=self._wake,
                    conditions=self._conditions,
                )
            )

    async def _step(self) -> float | None:
        try:
            pause = await self.reconcile()
            self._outage.over()
        except MaoError as error:  # a pause, not a back-off: the next change ends it
            if self._outage.is_news():
                log.warning("federation.waits", error=error.detail)
            return OUTAGE_RETRY if isinstance(error, Unavailable) else REFUSED_RETRY
        return pause

    async def reconcile(self) -> float | None:
        """Do what can be done now; return the seconds until the next run, None for RESYNC_PERIOD."""
        stored = await self.context.find_link()
        if stored is None:
            self.versions.update_condition_alone()
            return None
        link = stored.record
        async with self.context.connect_both(link.endpoints) as (store, admin):
            records = FederationRecords(store)
            identity = await records.identities.get(link.node)
            if identity is None or identity.record.state == "removed":
                return None
            await self._renew_certificate(store, identity.record)
            voters = await records.voters()
            voters.sort(key=lambda core: core.node != link.node)  # a core node tries its own etcd first
            endpoints = [core.client for core in voters]
            if endpoints and endpoints != link.endpoints:
                await self.context.links.update(
                    LINK, lambda current: current.model_copy(update={"endpoints": endpoints})
                )
            pause = None
            if identity.record.role == "core":
                pause = await join_etcd(self.context, store, admin, link)
            elif self.context.files.read(self.context.files.etcd_config) is not None:
                pause = await leave_etcd(self.context, store, admin, link)
            await self.versions.update_condition(await records.cores.by_name())
            if identity.record.role == "core" and await records.cores.get(link.node):
                signed = await self._serve_nodes(store, admin, link)
                pause = pause if signed or pause is not None else REFUSED_RETRY
        return pause

    async def _renew_certificate(self, store: Store, identity: Identity) -> None:
        """Request a new certificate when it is due, or install the signed one."""
        files = self.context.files
        ca, current, pending = files.read(files.ca), files.read(files.identity), files.read_pending()
        if not ca or not current:
            return
        if pending is None or not identity.certificate or identity.request != request_digest(pending.request):
            if needs_renewal(current, ca, self.context.now):
                await submit_request(self.context, store, pending_request(self.context, identity.user))
            return
        files.write_identity(ca=ca, certificate=identity.certificate, key=pending.key)
        await self.context.links.update(
            LINK,
            lambda link: link.model_copy(update={"generation": link.generation + 1}),
        )
        files.pending.unlink(missing_ok=True)
        log.info("federation.certificate_renewed", user=identity.user, until=identity.expires_at)

    async def _serve_nodes(self, store: Store, admin: Admin, link: Link) -> bool:
        """Carry out what other nodes need; return False if a request could not be signed."""
        records, all_signed = FederationRecords(store), True
        requests = await records.requests.by_name()  # by key, since a member could forge the name inside
        present = await records.members.by_name()
        listed = await records.cores.by_name()
        identities = (await records.identities.page()).items
        self._guard.keep({stored.record.node for stored in identities})
        for stored in identities:
            identity = stored.record
            node = identity.node
            action = decide_action(
                identity, requests.get(node), present=node in present, listed=node in listed
            )
            if action == "sign":
                signing = sign_request(self.context, store, admin, stored, requests[node])
                all_signed = await self._isolated(action, node, signing) and all_signed
            elif action is not None and node != link.node:
                await self._isolated(action, node, self._act(action, link, identity))
        return all_signed

    async def _act(self, action: Action, link: Link, identity: Identity) -> None:
        async with self.context.connect_without(identity.node, link) as (store, admin):
            if action == "complete-join":
                await complete_join(self.context, store, admin, identity)
            elif action == "remove":
                await remove_node(self.context, store, admin, identity)
            elif action == "demote":
                await demote_node(self.context, store, admin, identity)
            elif action == "grant-core":
                await admin.set_roles(identity.user, etcd_role_names(identity))

    async def _isolated(self, action: Action, node: str, work: Awaitable[None]) -> bool:
        """Return whether `work` succeeded; a failure of one node must not block the others."""
        try:
            await work
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 (one node's records may be invalid in any way)
            log.warning("federation.action_failed", node=node, action=action)
            self._guard.failed(node, error)
            return False
        self._guard.succeeded(node)
        return True
