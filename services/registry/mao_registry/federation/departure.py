"""A node's membership ends: it leaves, or a core node removes it.

The command `federation leave` (it also abandons a federation whose creation was not finished):

    1 etcd        wait until another core node has removed this one from etcd, if it is a core node
    2 records     copy the federation's registry to the node's own store
    3 datasets    remove the node from the `nodes` of all datasets, which are for display
    4 request     request to be removed, which core nodes carry out
    5 link        delete it: all services of this node switch to its own store
    6 files       delete certificates and pending requests

With `force`, steps 1, 3 and 4 are skipped if the federation does not answer, and step 2 copies the replica.

A node is removed by core nodes: its access is revoked first, then its records are deleted.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mao_registry.records.rules import without_node
from mao_registry.records.stores import delete_key, delete_prefix, replace_prefix
from mao_shared import keys
from mao_shared.errors import Conflict, Forbidden, Unauthorized, Unavailable
from mao_shared.federation.replica import Replica
from mao_shared.logs import get_logger
from mao_shared.models import CertificateRequest, Dataset, Departure, Enrolment, Identity
from mao_shared.models.common import STORED
from mao_shared.store import Entry, Records, Store
from mao_shared.store.records import dump

from .access import invitation_role, invitation_user, member_role
from .context import FederationContext, FederationRecords, check_core, not_in_federation
from .cores import not_joined, wait_until_demoted
from .etcd_members import check_removal, observe_members, remove_etcd_member
from .own_member import delete_own_member
from .registry_merge import KINDS, renumber_enrolments

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)

REMOVED = "store-identity-refused"  # the error code for a node that was removed


class LeaveCommand:
    """`federation leave`. `replica`: the last known records of the federation."""

    def __init__(self, context: FederationContext, replica: Replica) -> None:
        self.context = context
        self.replica = replica

    async def leave(self, *, force: bool) -> Departure:
        """Leave the federation, or abandon one whose creation was not finished.

        Raises NotFound (`no-federation`), Conflict (`last-core`, `quorum-at-risk`), Unavailable.
        """
        stored = await self.context.find_link()
        if stored is None:
            # An unfinished create, join or leave may have left files behind.
            files = self.context.files
            draft = files.read_draft()
            rest = (files.draft, files.invitation().identity, files.identity, files.etcd_config)
            if not any(path.exists() for path in rest):
                raise not_in_federation(self.context.node)
            self._remove_files()
            return Departure(federation=draft.name if draft else "", known=True, struck=True)
        link = stored.record
        removed = known = True
        try:
            async with self.context.connect_both(link.endpoints) as (store, admin):
                await store.ping()
                others = await self._leave_etcd(store, admin, link.node)
                await self._copy_registry(store)
                if others:
                    await remove_from_datasets(store, link.node)
                    await self._request_removal(store, link.node)
        except (Unavailable, Unauthorized, Forbidden) as error:
            removed = error.code == REMOVED
            if not force and not removed:
                raise type(error)(
                    f"The federation cannot be reached: {error.detail}",
                    code=error.code,
                    next="Try again when it answers, or leave without: maoctl federation leave --force; then"
                    f" run on a core node: maoctl federation remove {self.context.node}",
                ) from error
            known = await self.replica.contact(link.id) is not None
            if known:
                await self._copy_registry(self.replica)
        await delete_key(self.context.own, keys.link(self.context.node))
        self._remove_files()
        log.info("federation.left", federation=link.federation, removed=removed)
        return Departure(federation=link.federation, known=known, struck=removed)

    async def _leave_etcd(self, store: Store, admin: Admin, node: str) -> bool:
        """Become a client; return whether there are other nodes, which then remove this one."""
        records = FederationRecords(store)
        identities = {stored.record.node: stored.record for stored in await records.identities.all()}
        own = identities.pop(node, None)
        others = any(identity.state == "joined" for identity in identities.values())
        if own is None or own.state == "removed" or not others:
            return False
        if own.role == "core":
            check_removal(await observe_members(store, admin), node)
            await records.identities.update(
                node,
                lambda current: current.model_copy(update={"role": "client"}),
            )
            await wait_until_demoted(store, node)
        return True

    async def _request_removal(self, store: Store, node: str) -> None:
        def leaving(current: CertificateRequest | None) -> CertificateRequest:
            if current is not None:
                return current.model_copy(update={"leaving": True})
            return CertificateRequest(node=node, request="", requested_at=self.context.now, leaving=True)

        await FederationRecords(store).requests.create_or_update(node, leaving)

    async def _copy_registry(self, source: Store | Replica) -> None:
        """Copy the federation's registry to this node's store, without other nodes in its datasets."""
        own, node = self.context.own, self.context.node
        enrolments = await Records(own, keys.enrolments_prefix(node), Enrolment).all()
        outputs = {name for stored in enrolments for name in stored.record.outputs}
        for kind in KINDS:
            entries = (await source.list(keys.registry_prefix(kind))).entries
            if kind == "datasets":
                entries = _with_node_alone(entries, node, outputs)
            await replace_prefix(own, keys.registry_prefix(kind), entries)
        await renumber_enrolments(source, own, own, node)

    def _remove_files(self) -> None:
        delete_own_member(self.context)
        self.context.files.remove_identity()
        self.context.files.remove_drafts()


def _with_node_alone(entries: Sequence[Entry], node: str, outputs: Container[str]) -> list[Entry]:
    """Return the datasets without other nodes.

    `outputs`: datasets that this node's enrolments write; an earlier attempt to leave may have removed the
    node from them.
    """
    alone = []
    for entry in entries:
        try:
            dataset = Dataset.model_validate_json(entry.value, context=STORED)
        except ValidationError:  # it must not keep this node from leaving
            log.warning("federation.dataset_unreadable", key=entry.key)
            continue
        nodes = [node] if node in dataset.nodes or dataset.name in outputs else []
        alone.append(Entry(entry.key, dump(dataset.model_copy(update={"nodes": nodes})), entry.revision))
    return alone


REMOVED_TOPICS = ("parts", "endorsements", "runs", "asks", "answers")


"""Topics under a removed node's prefix to delete; mao_datamgmt.rounds deletes its round records."""


async def remove_node(context: FederationContext, store: Store, admin: Admin, identity: Identity) -> None:
    """Revoke the node's access, then delete its records.

    Raises Conflict before any change if etcd would lose its quorum without the node (`check_removal`).
    """
    node = identity.node
    check_removal(await observe_members(store, admin), node)

    def removed(current: Identity | None) -> Identity | None:
        if current is None or current.user != identity.user or current.state == "removed":
            return None
        changes = {"state": "removed", "role": "client", "removed_at": context.now}
        return current.model_copy(update=changes | {"certificate": None, "request": None, "expires_at": None})

    await FederationRecords(store).identities.create_or_update(node, removed)
    await admin.delete_user(identity.user)
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(member_role(node))
    await admin.delete_role(invitation_role(node))
    await remove_etcd_member(context, store, admin, node)
    await delete_key(store, keys.core(node))
    await delete_key(store, keys.member(node))
    await remove_from_datasets(store, node)
    for topic in REMOVED_TOPICS:
        await delete_prefix(store, f"{keys.peer_root(node)}{topic}/")
    await delete_key(store, keys.peer_node(node))
    await delete_key(store, keys.certificate_request(node))
    log.info("federation.node_removed", node=node, user=identity.user)


async def remove_from_datasets(store: Store, node: str) -> None:
    datasets = Records(store, keys.registry_prefix("datasets"), Dataset)
    for name, dataset in (await datasets.by_name()).items():
        if node in dataset.nodes:
            await datasets.update(name, lambda current: without_node(current, node))


async def remove(context: FederationContext, node: str) -> None:
    """Revoke the node's access (etcd then refuses its certificate) and delete its records. Idempotent.

    Raises NotFound, Conflict (`node-is-this-one`, `last-core`, `quorum-at-risk`).
    """
    link = await context.link()
    if node == link.node:
        raise Conflict(
            f"This is the node {node!r} itself.",
            code="node-is-this-one",
            next="Leave with 'maoctl federation leave', or remove it on another core node.",
        )
    async with context.connect_without(node, link) as (store, admin):
        await check_core(store, link, f"maoctl federation remove {node}")
        stored = await FederationRecords(store).identities.get(node)
        if stored is None:
            raise not_joined(node)
        await remove_node(context, store, admin, stored.record)
