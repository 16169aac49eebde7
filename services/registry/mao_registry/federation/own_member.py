"""The etcd member that a core node runs: its files, how it joins the cluster and leaves it.

Pure: the configuration file of the federation's etcd on this node (etcd's own `--config-file`).

The identity of the etcd member that a core node runs, and the file that starts it.

A node takes its seat in the federation's etcd, or leaves it: what its identity says is made so.

    1 learner     a new member without a vote, with the address of this node; one without its data goes first
    2 files       its certificates, signed here: a core node may read the authority's key
    3 etcd        the supervisor starts it; it catches up
    4 vote        as soon as etcd says that it has

Each look does what is left to do and can be done; the next one comes by itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mao_registry.records.writes import update_record
from mao_shared import keys
from mao_shared.errors import Conflict, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import CoreMember, Link
from mao_shared.store import Store

from . import pki
from .context import LINK, EtcdAddress, FederationContext, FederationRecords, read_authority
from .etcd_members import (
    at_leader,
    check_addition,
    check_removal,
    member_states,
    observe_members,
    remove_etcd_member,
)
from .files import RegistryFiles
from .pki import issue, needs_renewal

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """Files of one TLS identity."""

    ca: Path
    certificate: Path
    key: Path


def etcd_config(
    node: str,
    place: EtcdAddress,
    *,
    data_dir: Path,
    token: str,
    cluster: Mapping[str, str],
    existing: bool,
    server: TlsIdentity,
    peer: TlsIdentity,
) -> str:
    """JSON, which is YAML. `cluster`: name → peer URL of all members, this one among them.

    Members trust each other by an authority of their own: who has only a certificate for clients cannot
    speak etcd's inner protocol, which knows no users. The gRPC gateway is off, since it would act under the
    server's own name.
    """
    bind = place.listens_on()
    settings = {
        "name": node,
        "data-dir": str(data_dir),
        "listen-client-urls": f"https://{bind}:{place.port}",
        "advertise-client-urls": f"https://{place.client}",
        "listen-peer-urls": f"https://{bind}:{place.peer_port}",
        "initial-advertise-peer-urls": place.peer_url,
        "initial-cluster": ",".join(f"{name}={url}" for name, url in sorted(cluster.items())),
        "initial-cluster-state": "existing" if existing else "new",
        "initial-cluster-token": token,
        "client-transport-security": _security(server),
        "peer-transport-security": _security(peer),
        "enable-grpc-gateway": False,
        "strict-reconfig-check": True,
        "pre-vote": True,  # a node whose link comes back does not disturb the leader
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        "logger": "zap",
        "log-level": "error",  # a member that is away is told of by `maoctl doctor`, not every five seconds
    }
    return json.dumps(settings, indent=1) + "\n"


def _security(pem: TlsIdentity) -> dict[str, object]:
    return {
        "cert-file": str(pem.certificate),
        "key-file": str(pem.key),
        "trusted-ca-file": str(pem.ca),
        "client-cert-auth": True,
    }


LOOPBACK = ("127.0.0.1", "localhost")


def write_member_identity(
    folder: RegistryFiles,
    place: EtcdAddress,
    user: str,
    authority: pki.Authority,
    peers: pki.Authority,
    now: datetime,
) -> None:
    """Gives the member its two certificates, unless it has good ones. etcd reads them anew by itself.

    Members know each other by certificates of another authority than the one that signs clients.
    """
    hosts = (place.address, *LOOPBACK)
    folder.save(folder.peers_ca, peers.certificate)
    for path, signer in ((folder.server_identity, authority), (folder.peer_identity, peers)):
        there = folder.read(path)
        if (
            there
            and not needs_renewal(there, signer.certificate, now)
            and place.address in pki.facts(there).hosts
        ):
            continue
        folder.save(path, "".join(issue(signer, user, now, hosts)))


def write_config(
    folder: RegistryFiles,
    node: str,
    place: EtcdAddress,
    *,
    life: str,
    token: str,
    cluster: Mapping[str, str],
    existing: bool,
) -> bool:
    """Whether the file has changed.

    `life` names the member's data: one that was removed comes back under another id, and so with other data.
    """
    text = etcd_config(
        node,
        place,
        data_dir=folder.etcd_data / life,
        token=token,
        cluster=cluster,
        existing=existing,
        server=TlsIdentity(folder.ca, folder.server_identity, folder.server_identity),
        peer=TlsIdentity(folder.peers_ca, folder.peer_identity, folder.peer_identity),
    )
    return folder.save(folder.etcd_config, text)


log = get_logger(__name__)

SOON = 1.0  # seconds after which a learner is looked at again


async def join_etcd(site: FederationContext, store: Store, admin: Admin, link: Link) -> float | None:
    """Seconds after which to look again; None when it votes. Raises Conflict when it cannot come now."""
    place = site.place
    if place is None:
        log.warning("federation.no_address", setting="MAO_FEDERATION_ADDRESS")
        return None
    members = await admin.members()
    mine = _find(members, link.node, place)
    if mine is not None and mine.name and site.folder.read(site.folder.etcd_config) is None:
        # It has run and its data are gone, as after a restore: under its id it would forget what it voted.
        check_removal(await member_states(store, admin), link.node)
        await remove_etcd_member(site, store, admin, link.node)
        log.info("federation.seat_lost", node=link.node, member=mine.id)
        mine = None
    if mine is None:
        check_addition(await member_states(store, admin), link.node)
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


def _find(members: list[EtcdMember], node: str, place: EtcdAddress) -> EtcdMember | None:
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
    site: FederationContext,
    store: Store,
    link: Link,
    place: EtcdAddress,
    mine: EtcdMember,
    members: list[EtcdMember],
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


async def _ask_for_vote(
    site: FederationContext, store: Store, admin: Admin, place: EtcdAddress, member_id: str
) -> float:
    """Of the leader: a follower of etcd 3.4 hands the question on and does not come back with the answer."""
    try:
        async with at_leader(site, await observe_members(store, admin)) as leader:
            await leader.promote(member_id)
    except (Conflict, Unavailable) as error:
        log.debug("federation.not_yet", error=error.detail)
        return SOON
    await _record(store, site.node, place, member_id, learner=False)
    log.info("federation.promoted", node=site.node)
    return 0.0


async def _record(store: Store, node: str, place: EtcdAddress, member_id: str, *, learner: bool) -> None:
    wanted = CoreMember(node=node, member_id=member_id, client=place.client, peer=place.peer, learner=learner)
    await update_record(FederationRecords(store).cores, node, lambda _: wanted)


async def leave_etcd(site: FederationContext, store: Store, admin: Admin, link: Link) -> float | None:
    """Stops this node's etcd once the others have taken it off; seconds after which to look again."""
    cores = await FederationRecords(store).cores.get(link.node)
    if cores is not None:
        return SOON
    members = await admin.members()
    if site.place is not None and _find(members, link.node, site.place) is not None:
        return SOON
    delete_own_member(site)
    await _note_role(site, "client")
    return None


def delete_own_member(site: FederationContext) -> None:
    """Stops this node's etcd and forgets its data."""
    site.folder.remove_member()
    site.tell_supervisor()
    shutil.rmtree(site.folder.etcd_data, ignore_errors=True)


async def _note_role(site: FederationContext, role: str) -> None:
    await update_record(site.links, LINK, lambda there: there and there.model_copy(update={"role": role}))
