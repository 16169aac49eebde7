"""Inviting a node: an identity that waits for it, and a token with which it may ask for its certificate.

1 identity    with a user that was never used before
2 users       a role and a user for the invitation alone; those of an earlier invitation go
3 token       a certificate for that user, for a day
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mao_registry.records.federation_writes import edit
from mao_shared import keys
from mao_shared.errors import AlreadyExists, Conflict, InvalidInput
from mao_shared.models import Identity, Link
from mao_shared.store import Store

from . import pki
from .access import invitation_role, invitation_user, next_user
from .context import Ledger, Site, check_core
from .files import AuthorityPem
from .member import authority_of
from .rights import invited_grants
from .token import Token, make_token

if TYPE_CHECKING:
    from mao_shared.store.etcd_admin import Admin


async def read_authority(store: Store, key: str) -> pki.Authority:
    """Raises Forbidden when this node is no core node, Conflict (`authority-missing`) when there is none."""
    entry = await store.get(key)
    if entry is None:
        raise Conflict(
            "The federation's store does not hold its authority's key.",
            code="authority-missing",
            next="Put its etcd back from its data or a snapshot: no node's backup has it. Or found it "
            "anew: 'maoctl federation leave --force' on each node, then docs/federation.md.",
        )
    return authority_of(AuthorityPem.model_validate_json(entry.value))


async def invite(site: Site, node: str, valid: timedelta) -> Token:
    """Raises AlreadyExists (`node-joined`), InvalidInput (`node-name-too-long`), and Forbidden (`not-core`).

    The last on a node that is no core node.
    """
    link = await site.linked()
    async with site.joined(",".join(link.endpoints)) as store, site.admin(",".join(link.endpoints)) as admin:
        await check_core(store, link, f"maoctl federation invite {node}")
        stored = await edit(Ledger(store).identities, node, lambda before: _invited(before, node, site))
        assert stored is not None  # noqa: S101 (`_invited` always makes one)
        user = invitation_user(stored.record.user)
        await _forget_earlier(admin, stored.record)
        await admin.ensure_role(invitation_role(node), invited_grants(node))
        await admin.ensure_user(user, [invitation_role(node)])
        return await _token(store, link, node, user, valid, site)


def _invited(before: Identity | None, node: str, site: Site) -> Identity:
    if before is not None and before.state == "joined":
        raise AlreadyExists(
            f"The node {node!r} has joined already.",
            code="node-joined",
            next=f"If it is gone for good, take it off first: maoctl federation remove {node}.",
        )
    user = next_user(node, before)
    if (over := len(invitation_user(user)) - pki.MAX_USER) > 0:
        raise InvalidInput(
            f"The name {node!r} is too long for a federation: with {invitation_user(user)!r} a certificate's"
            f" common name would have {over} characters too many.",
            code="node-name-too-long",
            next=f"Give the node a name of at most {len(node) - over} characters (MAO_NODE) before it joins.",
        )
    return Identity(node=node, user=user, invited_at=site.now)


async def _forget_earlier(admin: Admin, identity: Identity) -> None:
    node, _, number = identity.user.rpartition("@")
    for earlier in range(max(1, int(number) - 3), int(number)):
        await admin.delete_user(f"{node}@{earlier}")
        await admin.delete_user(invitation_user(f"{node}@{earlier}"))


async def _token(store: Store, link: Link, node: str, user: str, valid: timedelta, site: Site) -> Token:
    authority = await read_authority(store, keys.authority())
    key = pki.make_key()
    certificate = pki.sign(authority, pki.make_request(key, user), user, (), valid, now=site.now)
    return make_token(
        link.federation, node, link.endpoints, ca=authority.certificate, certificate=certificate, key=key
    )
