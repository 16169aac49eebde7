"""The identity of the etcd member that a core node runs, and the file that starts it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from . import pki
from .files import AuthorityPem, Folder
from .own_member import Pem, Place, etcd_config

LIFETIME = timedelta(days=180)  # of a node's certificates; they are renewed after two thirds of it
LOOPBACK = ("127.0.0.1", "localhost")


def authority_of(pem: AuthorityPem) -> pki.Authority:
    return pki.Authority(pem.certificate, pem.key)


def issue(authority: pki.Authority, user: str, now: datetime, hosts: tuple[str, ...] = ()) -> tuple[str, str]:
    """A new certificate and its key; with `hosts` for servers as well."""
    key = pki.make_key()
    request = pki.make_request(key, user, hosts)
    return pki.sign(authority, request, user, hosts, LIFETIME, server=bool(hosts), now=now), key


def is_due(certificate: str, ca: str, now: datetime) -> bool:
    """Whether a certificate is another authority's, or past two thirds of its life."""
    if not pki.is_signed_by(certificate, ca):
        return True
    known = pki.facts(certificate)
    return now >= known.not_before + (known.not_after - known.not_before) * 2 / 3


def write_member_identity(
    folder: Folder,
    place: Place,
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
        if there and not is_due(there, signer.certificate, now) and place.address in pki.facts(there).hosts:
            continue
        folder.save(path, "".join(issue(signer, user, now, hosts)))


def write_config(
    folder: Folder,
    node: str,
    place: Place,
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
        server=Pem(folder.ca, folder.server_identity, folder.server_identity),
        peer=Pem(folder.peers_ca, folder.peer_identity, folder.peer_identity),
    )
    return folder.save(folder.etcd_config, text)
