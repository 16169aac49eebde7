"""Removing a node: its access is revoked first, then its records are deleted. Core nodes do this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mao_registry.records.rules import without_node
from mao_registry.records.stores import delete_key, delete_prefix
from mao_shared import keys
from mao_shared.errors import Conflict
from mao_shared.logs import get_logger
from mao_shared.models import Dataset, Identity
from mao_shared.store import Records, Store

from .access import invitation_role, invitation_user, member_role
from .context import FederationContext, FederationRecords, check_core
from .cores import not_joined
from .etcd_members import check_removal, observe_members, remove_etcd_member

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
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
