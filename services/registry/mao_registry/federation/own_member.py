"""The etcd member of a core node: its files, how it joins the cluster and leaves it.

    1 learner     add a member without a vote, at this node's address; first remove one that lost its data
    2 files       write its certificates, signed here, since a core node may read the authority's key
    3 etcd        the supervisor starts it; it catches up with the leader
    4 vote        promote it as soon as it has caught up

Each call of `join_etcd` and `leave_etcd` does what can be done now and returns when to call again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mao_shared.errors import Conflict, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import CoreMember, Link
from mao_shared.store import Store
from mao_shared.store.endpoints import TlsFiles

from . import pki
from .context import LINK, EtcdAddress, FederationContext, FederationRecords
from .etcd_members import at_leader, check_addition, check_removal, observe_members, remove_etcd_member
from .files import RegistryFiles

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin, EtcdMember

log = get_logger(__name__)
LOOPBACK = ("127.0.0.1", "localhost")
LEARNER_PERIOD = 1.0  # seconds between checks of a learner


def etcd_config(
    node: str,
    address: EtcdAddress,
    *,
    data_dir: Path,
    token: str,
    cluster: Mapping[str, str],
    existing: bool,
    server: TlsFiles,
    peer: TlsFiles,
) -> str:
    """Return etcd's configuration file as JSON, which is valid YAML. Pure.

    `cluster`: name → peer URL of all members, this one included.

    Peer connections have an authority of their own, so that clients' certificates are not accepted there:
    etcd's peer protocol has no users. The gRPC gateway is off, since it would use the server's certificate.
    """
    listen_host = address.listen_host()
    settings = {
        "name": node,
        "data-dir": str(data_dir),
        "listen-client-urls": f"https://{listen_host}:{address.port}",
        "advertise-client-urls": f"https://{address.client}",
        "listen-peer-urls": f"https://{listen_host}:{address.peer_port}",
        "initial-advertise-peer-urls": address.peer_url,
        "initial-cluster": ",".join(f"{name}={url}" for name, url in sorted(cluster.items())),
        "initial-cluster-state": "existing" if existing else "new",
        "initial-cluster-token": token,
        "client-transport-security": _transport_security(server),
        "peer-transport-security": _transport_security(peer),
        "enable-grpc-gateway": False,
        "strict-reconfig-check": True,
        "pre-vote": True,  # a node that reconnects does not disturb the leader
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        "logger": "zap",
        "log-level": "error",  # `maoctl doctor` reports absent members; etcd would every five seconds
    }
    return json.dumps(settings, indent=1) + "\n"


def _transport_security(tls: TlsFiles) -> dict[str, object]:
    return {
        "cert-file": str(tls.certificate),
        "key-file": str(tls.key),
        "trusted-ca-file": str(tls.ca),
        "client-cert-auth": True,
    }


def write_member_identity(
    files: RegistryFiles,
    address: EtcdAddress,
    user: str,
    authority: pki.Authority,
    peers: pki.Authority,
    now: datetime,
) -> None:
    """Issue the member's server and peer certificates unless they are valid; etcd reloads them itself."""
    hosts = (address.host, *LOOPBACK)
    files.save(files.peers_ca, peers.certificate)
    for path, signer in ((files.server_identity, authority), (files.peer_identity, peers)):
        current = files.read(path)
        if (
            not current
            or pki.needs_renewal(current, signer.certificate, now)
            or address.host not in pki.facts(current).hosts
        ):
            files.save(path, "".join(pki.issue(signer, user, now, hosts)))


def write_config(
    files: RegistryFiles,
    node: str,
    address: EtcdAddress,
    *,
    data_id: str,
    token: str,
    cluster: Mapping[str, str],
    existing: bool,
) -> bool:
    """Write etcd's configuration; return whether it has changed.

    `data_id` names the data directory: a member that was removed returns with a new id and empty data.
    """
    text = etcd_config(
        node,
        address,
        data_dir=files.etcd_data / data_id,
        token=token,
        cluster=cluster,
        existing=existing,
        server=TlsFiles(files.ca, files.server_identity, files.server_identity),
        peer=TlsFiles(files.peers_ca, files.peer_identity, files.peer_identity),
    )
    return files.save(files.etcd_config, text)


async def join_etcd(context: FederationContext, store: Store, admin: Admin, link: Link) -> float | None:
    """Add this node's etcd to the cluster; return the seconds until the next call, None once it votes.

    Raises Conflict if it cannot be added now.
    """
    address = context.address
    if address is None:
        log.warning("federation.no_address", setting="MAO_FEDERATION_ADDRESS")
        return None
    members = await admin.members()
    own = _find_member(members, link.node, address)
    if own is not None and own.name and context.files.read(context.files.etcd_config) is None:
        # Its data are lost, as after a restore: with the same id it would forget its votes.
        check_removal(await observe_members(store, admin), link.node)
        await remove_etcd_member(context, store, admin, link.node)
        log.info("federation.member_lost", node=link.node, member=own.id)
        own = None
    if own is None:
        check_addition(await observe_members(store, admin), link.node)
        context.files.remove_member()  # of an earlier membership
        context.notify_supervisor()
        own = await admin.add_learner(address.peer_url)
        members = [*(member for member in members if member.id != own.id), own]
    await _write_files(context, store, link, address, own, members)
    await _write_core_record(store, link.node, address, own.id, learner=own.learner)
    if own.learner:
        return await _promote(context, store, admin, address, own.id)
    await _set_link_role(context, "core")
    return None


def _find_member(members: list[EtcdMember], node: str, address: EtcdAddress) -> EtcdMember | None:
    """Return this node's member. Raises Conflict (`core-moved`) if it has another address."""
    for member in members:
        if address.peer_url in member.peer_urls:
            return member
        if member.name == node:
            raise Conflict(
                f"This node's etcd is a member at {', '.join(member.peer_urls)}, not at {address.peer_url}.",
                code="core-moved",
                next=f"Set MAO_FEDERATION_ADDRESS back, or demote {node} and promote it again.",
            )
    return None


async def _write_files(
    context: FederationContext,
    store: Store,
    link: Link,
    address: EtcdAddress,
    own: EtcdMember,
    members: list[EtcdMember],
) -> None:
    records = FederationRecords(store)
    authority, peers = await records.authority(), await records.peer_authority()
    write_member_identity(context.files, address, link.user, authority, peers, context.now)
    if context.files.read(context.files.etcd_config) is None:
        others = {
            member.name: member.peer_urls[0] for member in members if member.name and member.id != own.id
        }
        write_config(
            context.files,
            link.node,
            address,
            data_id=own.id,
            token=link.id,
            cluster={**others, link.node: address.peer_url},
            existing=True,
        )
    context.notify_supervisor()


async def _promote(
    context: FederationContext, store: Store, admin: Admin, address: EtcdAddress, member_id: str
) -> float:
    """Promote the learner; return the seconds until the next call.

    The request goes to the leader, since a follower of etcd 3.4 does not forward the leader's answer.
    """
    try:
        async with at_leader(context, await observe_members(store, admin)) as leader:
            await leader.promote(member_id)
    except (Conflict, Unavailable) as error:
        log.debug("federation.not_promoted_yet", error=error.detail)
        return LEARNER_PERIOD
    await _write_core_record(store, context.node, address, member_id, learner=False)
    log.info("federation.promoted", node=context.node)
    return 0.0


async def _write_core_record(
    store: Store, node: str, address: EtcdAddress, member_id: str, *, learner: bool
) -> None:
    core = CoreMember(
        node=node, member_id=member_id, client=address.client, peer=address.peer, learner=learner
    )
    await FederationRecords(store).cores.create_or_update(node, lambda _: core)


async def leave_etcd(context: FederationContext, store: Store, admin: Admin, link: Link) -> float | None:
    """Stop this node's etcd once another core node has removed it.

    Returns the seconds until the next call, None when done.
    """
    if await FederationRecords(store).cores.get(link.node) is not None:
        return LEARNER_PERIOD
    members = await admin.members()
    if context.address is not None and _find_member(members, link.node, context.address) is not None:
        return LEARNER_PERIOD
    delete_own_member(context)
    await _set_link_role(context, "client")
    return None


def delete_own_member(context: FederationContext) -> None:
    """Stop this node's etcd and delete its data."""
    context.files.remove_member()
    context.notify_supervisor()
    shutil.rmtree(context.files.etcd_data, ignore_errors=True)


async def _set_link_role(context: FederationContext, role: str) -> None:
    await context.links.update(LINK, lambda link: link.model_copy(update={"role": role}))
