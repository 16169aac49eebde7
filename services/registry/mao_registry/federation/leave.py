"""Leaving a federation, or dropping one that was never finished.

    1 seat        a core node becomes a client first: another core node sees to that
    2 records     the federation's registry is copied to the node's own store, to work on with
    3 datasets    it is struck off all, for people to see: who votes is said by its parts
    4 request     to be struck off, which core nodes answer
    5 link        its end: from here on the node stands alone
    6 files       certificates and what was asked for

With `force` 1, 3 and 4 are left out where the federation does not answer, and 2 takes what is known of it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mao_registry.records.references import enrolled_outputs
from mao_registry.records.writes import delete_key, put_value, update_record
from mao_shared import keys
from mao_shared.errors import Forbidden, MaoError, Unauthorized, Unavailable
from mao_shared.federation.replica import Replica
from mao_shared.logs import get_logger
from mao_shared.models import CertificateRequest, Dataset, Departure, Enrolment, Identity, Link
from mao_shared.models.common import STORED
from mao_shared.store import Entry, Records, Store
from mao_shared.store.records import dump

from .context import FederationContext, FederationRecords, not_in_federation
from .cores import remove_from_datasets, wait_until_demoted
from .etcd_members import check_removal, member_states
from .own_member import delete_own_member
from .registry_merge import KINDS, renumber_enrolments

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
REFUSED = "store-identity-refused"  # the code for a node that was removed: nobody is left to tell


class LeaveCommand:
    """`federation leave`; `known`: copies of the federation's records while it is away."""

    def __init__(self, site: FederationContext, known: Replica) -> None:
        self.site = site
        self.known = known

    async def leave(self, *, force: bool) -> Departure:
        """Raises NotFound (`no-federation`), Conflict (`last-core`, `quorum-at-risk`), Unavailable."""
        stored = await self.site.link()
        if stored is None:
            return self._drop_rest()
        link = stored.record
        try:
            struck, known = await self._tell(link), True
        except (Unavailable, Unauthorized, Forbidden) as error:
            self._check_forced(error, force=force)
            struck, known = error.code == REFUSED, await self._copy_known(link)
        await delete_key(self.site.own, keys.link(self.site.node))
        self._forget()
        log.info("federation.left", federation=link.federation, struck=struck)
        return Departure(federation=link.federation, known=known, struck=struck)

    def _check_forced(self, error: MaoError, *, force: bool) -> None:
        if force or error.code == REFUSED:
            return
        raise type(error)(
            f"The federation cannot be told: {error.detail}",
            code=error.code,
            next="Try again when it answers, or go without: maoctl federation leave --force; then have it run"
            f" on a core node: maoctl federation remove {self.site.node}.",
        ) from error

    async def _tell(self, link: Link) -> bool:
        """Whether nothing is left to be done there; the registry is copied as well."""
        endpoints = ",".join(link.endpoints)
        async with self.site.joined(endpoints) as store, self.site.admin(endpoints) as admin:
            await store.ping()
            others = await self._leave_core(store, admin, link)
            await self._copy(store)
            if others:
                await remove_from_datasets(store, link.node)
                await self._ask_to_be_struck(store, link)
            return True

    async def _leave_core(self, store: Store, admin: Admin, link: Link) -> bool:
        """Whether somebody is left who strikes this node off."""
        identities = [each.record for each in await FederationRecords(store).identities.all()]
        mine = next((each for each in identities if each.node == link.node), None)
        others = [each for each in identities if each.node != link.node and each.state == "joined"]
        if mine is None or mine.state == "removed" or not others:
            return False
        if mine.role == "core":
            check_removal(await member_states(store, admin), link.node)
            await self._leave_seat(store, link.node)
        return True

    async def _ask_to_be_struck(self, store: Store, link: Link) -> None:
        def leaving(before: CertificateRequest | None) -> CertificateRequest:
            if before is not None:
                return before.model_copy(update={"leaving": True})
            return CertificateRequest(node=link.node, request="", requested_at=self.site.now, leaving=True)

        await update_record(FederationRecords(store).requests, link.node, leaving)

    async def _leave_seat(self, store: Store, node: str) -> None:
        def client(there: Identity | None) -> Identity | None:
            return there and there.model_copy(update={"role": "client"})

        await update_record(FederationRecords(store).identities, node, client)
        await wait_until_demoted(store, node)

    async def _copy_known(self, link: Link) -> bool:
        """Whether there is a whole copy of this federation's records."""
        if await self.known.contact(link.id) is None:
            return False
        await self._copy(self.known)
        return True

    async def _copy(self, source: Store | Replica) -> None:
        """Makes the federation's registry this node's own, with this node alone in its datasets."""
        enrolments = Records(self.site.own, keys.enrolments_prefix(self.site.node), Enrolment)
        outputs = {name for each in await enrolments.all() for name in enrolled_outputs(each.record)}
        for kind in KINDS:
            entries = (await source.list(keys.registry_prefix(kind))).entries
            alone = _alone(entries, self.site.node, outputs) if kind == "datasets" else entries
            await self._replace(keys.registry_prefix(kind), alone)
        await renumber_enrolments(source, self.site.own, self.site.own, self.site.node)

    async def _replace(self, prefix: str, entries: Sequence[Entry]) -> None:
        gone = {entry.key for entry in (await self.site.own.list(prefix)).entries}
        for entry in entries:
            gone.discard(entry.key)
            await put_value(self.site.own, entry.key, entry.value)
        for key in gone:
            await delete_key(self.site.own, key)

    def _drop_rest(self) -> Departure:
        """What a founding, joining or leaving left behind that did not come to its end."""
        folder = self.site.folder
        draft = folder.read_draft()
        rest = (folder.draft, folder.invitation().identity, folder.identity, folder.etcd_config)
        if not any(path.exists() for path in rest):
            raise not_in_federation(self.site.node)
        self._forget()
        return Departure(federation=draft.name if draft else "", known=True, struck=True)

    def _forget(self) -> None:
        delete_own_member(self.site)
        self.site.folder.remove_identity()
        self.site.folder.remove_drafts()


def _alone(entries: Sequence[Entry], node: str, outputs: Container[str]) -> list[Entry]:
    """Datasets as a node that stands alone has them: no vote waits for others.

    `outputs`: those it is enrolled to write; an attempt to leave that was killed may have struck it off them.
    """
    alone = []
    for entry in entries:
        try:
            dataset = Dataset.model_validate_json(entry.value, context=STORED)
        except ValidationError:  # nobody's who could be asked; it does not keep this node from leaving
            log.warning("federation.dataset_unreadable", key=entry.key)
            continue
        nodes = [node] if node in dataset.nodes or dataset.name in outputs else []
        alone.append(Entry(entry.key, dump(dataset.model_copy(update={"nodes": nodes})), entry.revision))
    return alone
