"""What core nodes do for the others: sign their requests, see them in, strike them off.

Every core node does this for all; they do not agree on who does it, since each act may be repeated, and the
identity, which is replaced only in the form it was read, tells who was first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mao_registry.records.datasets import without_node
from mao_registry.records.federation_writes import drop, drop_prefix, edit
from mao_registry.records.writes import unknown_is_lost
from mao_shared import keys
from mao_shared.errors import InvalidInput
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import CertificateRequest, Dataset, Identity
from mao_shared.store import Records, Store, Stored

from . import pki
from .access import invitation_role, invitation_user, member_role, roles_of
from .context import Ledger, Site
from .cores import digest
from .etcd_members import check_may_go
from .etcd_seats import read_seats, remove_from_etcd
from .invite import read_authority
from .member import LIFETIME
from .rights import member_grants

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin

log = get_logger(__name__)
GONE_TOPICS = (
    "parts",
    "endorsements",
    "runs",
    "asks",
    "answers",
)  # what it has said of rounds goes with them (mao_datamgmt/rounds/retention.py)


async def sign(
    site: Site, store: Store, admin: Admin, identity: Stored[Identity], request: CertificateRequest
) -> None:
    """Makes the node's user and answers its request; one that cannot be signed is deleted."""
    known = identity.record
    authority = await read_authority(store, keys.authority())
    try:
        certificate = pki.sign(authority, request.request, known.user, (), LIFETIME, now=site.now)
    except InvalidInput as error:
        log.warning("federation.request_refused", node=known.node, error=error.detail)
        await drop(store, keys.certificate_request(known.node))
        return
    await admin.ensure_role(member_role(known.node), member_grants(known.node))
    await admin.ensure_user(known.user, roles_of(known))
    signed = known.model_copy(
        update={
            "request": digest(request.request),
            "certificate": certificate,
            "expires_at": pki.facts(certificate).not_after,
        }
    )
    await unknown_is_lost(Ledger(store).identities.replace(known.node, signed, identity.revision))
    log.info("federation.signed", node=known.node, user=known.user)


async def finish(site: Site, store: Store, admin: Admin, identity: Identity) -> None:
    """The node has come with its own certificate: its invitation is worth nothing any more."""
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(invitation_role(identity.node))

    def joined(there: Identity | None) -> Identity | None:
        if there is None or there.user != identity.user or there.state != "invited":
            return None
        return there.model_copy(update={"state": "joined", "joined_at": site.now})

    await edit(Ledger(store).identities, identity.node, joined)
    log.info("federation.node_joined", node=identity.node)


async def strike(site: Site, store: Store, admin: Admin, identity: Identity) -> None:
    """Takes a node off: first its right to do anything, then what is left of it.

    Raises Conflict when etcd would stand still without it (`safety.check_may_go`); nothing was done then.
    """
    node = identity.node
    check_may_go(await read_seats(store, admin), node)

    def removed(there: Identity | None) -> Identity | None:
        if there is None or there.user != identity.user or there.state == "removed":
            return None
        changes = {"state": "removed", "role": "client", "removed_at": site.now}
        return there.model_copy(update=changes | {"certificate": None, "request": None, "expires_at": None})

    await edit(Ledger(store).identities, node, removed)
    await admin.delete_user(identity.user)
    await admin.delete_user(invitation_user(identity.user))
    await admin.delete_role(member_role(node))
    await admin.delete_role(invitation_role(node))
    await remove_from_etcd(site, store, admin, node)
    await drop(store, keys.core(node))
    await drop(store, keys.member(node))
    await strike_off_datasets(store, node)
    for topic in GONE_TOPICS:
        await drop_prefix(store, f"{keys.peer_root(node)}{topic}/")
    await drop(store, keys.peer_node(node))
    await drop(store, keys.certificate_request(node))
    log.info("federation.node_removed", node=node, user=identity.user)


async def unseat(site: Site, store: Store, admin: Admin, identity: Identity) -> None:
    """Lets a core node be a client; raises Conflict when etcd would stand still without it.

    Not by the node itself: it could not finish after it has lost the right to.
    """
    check_may_go(await read_seats(store, admin), identity.node)
    await admin.ensure_role(member_role(identity.node), member_grants(identity.node))
    await admin.set_roles(identity.user, [member_role(identity.node)])
    await remove_from_etcd(site, store, admin, identity.node)
    await drop(store, keys.core(identity.node))
    log.info("federation.demoted", node=identity.node)


async def strike_off_datasets(store: Store, node: str) -> None:
    """No vote waits for the node any more."""
    datasets = Records(store, keys.registry_prefix("datasets"), Dataset)
    for name, dataset in (await datasets.by_name()).items():
        if node in dataset.nodes:
            await edit(datasets, name, lambda now: now and without_node(now, node))
