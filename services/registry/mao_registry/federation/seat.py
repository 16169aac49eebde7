"""A node takes its seat in the federation's etcd, or leaves it: what its identity says is made so.

    1 learner     a new member without a vote, with the address of this node; one without its data goes first
    2 files       its certificates, signed here: a core node may read the authority's key
    3 etcd        the supervisor starts it; it catches up
    4 vote        as soon as etcd says that it has

Each look does what is left to do and can be done; the next one comes by itself.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mao_registry.records.federation_writes import edit
from mao_shared import keys
from mao_shared.errors import Conflict, Unavailable
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import CoreMember, Link
from mao_shared.store import Store

from .context import LINK, Ledger, Site
from .etcd_members import check_may_come, check_may_go
from .etcd_seats import at_leader, look_at_members, read_seats, remove_from_etcd
from .invite import read_authority
from .member import write_config, write_member_identity
from .own_member import Place

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember

log = get_logger(__name__)
SOON = 1.0  # seconds after which a learner is looked at again


async def take_seat(site: Site, store: Store, admin: Admin, link: Link) -> float | None:
    """Seconds after which to look again; None when it votes. Raises Conflict when it cannot come now."""
    place = site.place
    if place is None:
        log.warning("federation.no_address", setting="MAO_FEDERATION_ADDRESS")
        return None
    members = await admin.members()
    mine = _find(members, link.node, place)
    if mine is not None and mine.name and site.folder.read(site.folder.etcd_config) is None:
        # It has run and its data are gone, as after a restore: under its id it would forget what it voted.
        check_may_go(await read_seats(store, admin), link.node)
        await remove_from_etcd(site, store, admin, link.node)
        log.info("federation.seat_lost", node=link.node, member=mine.id)
        mine = None
    if mine is None:
        check_may_come(await read_seats(store, admin), link.node)
        site.folder.remove_member()  # of an earlier seat
        site.tell_supervisor()
        mine = await admin.add_learner(place.peer_url)
        members = [*(each for each in members if each.id != mine.id), mine]
    await _prepare(site, store, link, place, mine, members)
    await _record(store, link.node, place, mine.id, learner=mine.learner)
    if mine.learner:
        return await _ask_for_vote(site, store, admin, place, mine.id)
    await _note_role(site, "core")
    return None


def _find(members: list[EtcdMember], node: str, place: Place) -> EtcdMember | None:
    """Raises Conflict (`core-moved`) when this node's member is known by another address."""
    for member in members:
        if place.peer_url in member.peer_urls:
            return member
        if member.name == node:
            raise Conflict(
                f"This node's etcd is known at {', '.join(member.peer_urls)}, not at {place.peer_url}.",
                code="core-moved",
                next=f"Set MAO_FEDERATION_ADDRESS back, or demote {node} and promote it again.",
            )
    return None


async def _prepare(
    site: Site, store: Store, link: Link, place: Place, mine: EtcdMember, members: list[EtcdMember]
) -> None:
    authority = await read_authority(store, keys.authority())
    peers = await read_authority(store, keys.peer_authority())
    write_member_identity(site.folder, place, link.user, authority, peers, site.now)
    if site.folder.read(site.folder.etcd_config) is None:
        cluster = {each.name: each.peer_urls[0] for each in members if each.name and each.id != mine.id}
        write_config(
            site.folder,
            link.node,
            place,
            life=mine.id,
            token=link.id,
            cluster={**cluster, link.node: place.peer_url},
            existing=True,
        )
    site.tell_supervisor()


async def _ask_for_vote(site: Site, store: Store, admin: Admin, place: Place, member_id: str) -> float:
    """Of the leader: a follower of etcd 3.4 hands the question on and does not come back with the answer."""
    try:
        async with at_leader(site, await look_at_members(store, admin)) as leader:
            await leader.promote(member_id)
    except (Conflict, Unavailable) as error:
        log.debug("federation.not_yet", error=error.detail)
        return SOON
    await _record(store, site.node, place, member_id, learner=False)
    log.info("federation.promoted", node=site.node)
    return 0.0


async def _record(store: Store, node: str, place: Place, member_id: str, *, learner: bool) -> None:
    wanted = CoreMember(node=node, member_id=member_id, client=place.client, peer=place.peer, learner=learner)
    await edit(Ledger(store).cores, node, lambda _: wanted)


async def leave_seat(site: Site, store: Store, admin: Admin, link: Link) -> float | None:
    """Stops this node's etcd once the others have taken it off; seconds after which to look again."""
    cores = await Ledger(store).cores.get(link.node)
    if cores is not None:
        return SOON
    members = await admin.members()
    if site.place is not None and _find(members, link.node, site.place) is not None:
        return SOON
    drop_member(site)
    await _note_role(site, "client")
    return None


def drop_member(site: Site) -> None:
    """Stops this node's etcd and forgets its data."""
    site.folder.remove_member()
    site.tell_supervisor()
    shutil.rmtree(site.folder.etcd_data, ignore_errors=True)


async def _note_role(site: Site, role: str) -> None:
    await edit(site.links, LINK, lambda there: there and there.model_copy(update={"role": role}))
