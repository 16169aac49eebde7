"""Access control in a federation's etcd: users, roles and their rights, and invitations.

A user is the common name of a certificate. `<node>@<n>` is the node itself; n grows with every invitation, so
that an old certificate never becomes valid again. `<node>@<n>-join` is the invitation, which may only request
the node's certificate. No node name contains `@`. Core nodes have etcd's role `root`.

A node is invited in three steps:

    1 identity    record the node with a new user name
    2 users       create a role and a user for the invitation; delete those of earlier invitations
    3 token       a certificate for that user, as one line of text: `mao1.` + base64url(zlib(JSON)); zlib's
                  checksum detects a token that was truncated or mistyped
"""

from __future__ import annotations

import base64
import binascii
import zlib
from datetime import UTC, datetime, timedelta

from pydantic import Field, ValidationError

from mao_shared import keys
from mao_shared.errors import AlreadyExists, InvalidInput
from mao_shared.models import Identity
from mao_shared.models.common import Name, NodeName, Record, Timestamp
from mao_shared.models.federation import Endpoint
from mao_shared.store import Grant
from mao_shared.store.endpoints import parse_endpoints

from . import pki
from .context import FederationContext, FederationRecords, check_core

ROOT = "root"  # etcd's role with all rights; also a user, which etcd requires
INVITATION_PREFIX = "mao1."
_MAX_TOKEN_LENGTH = 40_000  # characters; a token has about 3000
_MAX_CONTENT = 60_000  # bytes, uncompressed


def etcd_user_name(node: str, number: int) -> str:
    return f"{node}@{number}"


def next_user(node: str, before: Identity | None) -> str:
    """Return the user name for the node's next invitation."""
    number = int(before.user.rpartition("@")[2]) if before else 0
    return etcd_user_name(node, number + 1)


def invitation_user(user: str) -> str:
    return f"{user}-join"


def member_role(node: str) -> str:
    return f"member-{node}"


def invitation_role(node: str) -> str:
    return f"join-{node}"


def etcd_role_names(identity: Identity) -> list[str]:
    return [ROOT] if identity.role == "core" else [member_role(identity.node)]


def member_grants(node: str) -> list[Grant]:
    """Return the rights of a member: read everything, write under its own prefix, change shared records."""
    return [
        Grant("read", f"{keys.ROOT}/", prefix=True),
        Grant("readwrite", keys.peer_root(node), prefix=True),
        Grant("readwrite", keys.member(node)),
        Grant("readwrite", keys.signer(node)),
        Grant("readwrite", keys.certificate_request(node)),
        Grant("readwrite", f"{keys.ROOT}/registry/", prefix=True),
        Grant("readwrite", keys.all_rounds(), prefix=True),
    ]


def invited_grants(node: str) -> list[Grant]:
    """Return the rights of an invitation: check for name clashes and request a certificate."""
    return [
        Grant("read", f"{keys.ROOT}/", prefix=True),
        Grant("readwrite", keys.certificate_request(node)),
    ]


class InvitationToken(Record):
    """The content of an invitation. `fingerprint`: SHA-256 of the authority's certificate."""

    federation: Name
    node: NodeName
    user: str = Field(min_length=1, max_length=pki.MAX_USER)
    endpoints: list[Endpoint] = Field(min_length=1, max_length=20)
    ca: str = Field(max_length=20_000)
    certificate: str = Field(max_length=20_000)
    key: str = Field(max_length=20_000, repr=False)
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires_at: Timestamp


def make_token(
    federation: str, node: str, endpoints: list[str], *, ca: str, certificate: str, key: str
) -> InvitationToken:
    """Make a token; user, fingerprint and expiry are read from the certificates."""
    facts = pki.facts(certificate)
    return InvitationToken(
        federation=federation,
        node=node,
        user=facts.user,
        endpoints=endpoints,
        ca=ca,
        certificate=certificate,
        key=key,
        fingerprint=pki.facts(ca).fingerprint,
        expires_at=facts.not_after,
    )


def encode_token(token: InvitationToken) -> str:
    packed = zlib.compress(token.model_dump_json().encode(), 9)
    return INVITATION_PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_token(text: str, *, now: datetime | None = None) -> InvitationToken:
    """Parse and check a token. Raises InvalidInput (`token-invalid`, `token-expired`)."""
    try:
        token = InvitationToken.model_validate_json(_unpack_token("".join(text.split())))
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"])) or "content"
        raise _token_invalid(f"its {field} is missing or malformed") from None
    # These checks only find mistakes: whoever issues a token can forge all of its parts.
    try:
        parse_endpoints(",".join(token.endpoints))
        facts = pki.facts(token.certificate)
        key_matches = pki.belongs_to(token.key, token.certificate)
        fingerprint = pki.facts(token.ca).fingerprint
    except (ValueError, InvalidInput) as error:
        raise _token_invalid(str(error)) from None
    if fingerprint != token.fingerprint:
        raise _token_invalid("its fingerprint does not match its authority's certificate")
    if not pki.is_signed_by(token.certificate, token.ca) or not key_matches:
        raise _token_invalid("its certificate, key and authority do not belong together")
    if facts.user != token.user or facts.not_after != token.expires_at:
        raise _token_invalid("its certificate is for another user or time")
    if token.expires_at <= (now or datetime.now(UTC)):
        raise InvalidInput(
            f"The invitation of {token.node} to {token.federation} expired at "
            f"{token.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
            code="token-expired",
            next=f"Ask for a new one: 'maoctl federation invite {token.node}' on a core node.",
        )
    return token


def _unpack_token(text: str) -> bytes:
    if not text:
        raise _token_invalid("it is empty")
    if not text.startswith(INVITATION_PREFIX):
        raise _token_invalid(f"it does not start with {INVITATION_PREFIX!r}")
    if len(text) > _MAX_TOKEN_LENGTH:
        raise _token_invalid("it is too long")
    body = text.removeprefix(INVITATION_PREFIX)
    decoder = zlib.decompressobj()
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        content = decoder.decompress(packed, _MAX_CONTENT)
    except (ValueError, binascii.Error, zlib.error):
        raise _token_invalid("it is truncated or mistyped") from None
    if not decoder.eof or decoder.unused_data:
        raise _token_invalid("it is truncated or mistyped")
    return content


def _token_invalid(why: str) -> InvalidInput:
    return InvalidInput(
        f"invalid invitation: {why}.",
        code="token-invalid",
        next="Copy the whole line that 'maoctl federation invite' printed.",
    )


async def invite(context: FederationContext, node: str, valid: timedelta) -> InvitationToken:
    """Invite a node; `valid` is how long the invitation can be used. Core nodes only.

    Raises AlreadyExists (`node-joined`), InvalidInput (`node-name-too-long`) and Forbidden (`not-core`).
    """
    link = await context.link()
    async with context.connect_both(link.endpoints) as (store, admin):
        await check_core(store, link, f"maoctl federation invite {node}")
        records = FederationRecords(store)
        stored = await records.identities.create_or_update(
            node, lambda before: _invited(before, node, context)
        )
        assert stored is not None  # noqa: S101 (`_invited` never returns None)
        user = invitation_user(stored.record.user)
        number = int(stored.record.user.rpartition("@")[2])
        for earlier in (etcd_user_name(node, before) for before in range(max(1, number - 3), number)):
            await admin.delete_user(earlier)
            await admin.delete_user(invitation_user(earlier))
        await admin.ensure_role(invitation_role(node), invited_grants(node))
        await admin.ensure_user(user, [invitation_role(node)])
        authority, key = await records.authority(), pki.make_key()
    certificate = pki.sign(authority, pki.make_request(key, user), user, (), valid, now=context.now)
    return make_token(
        link.federation, node, link.endpoints, ca=authority.certificate, certificate=certificate, key=key
    )


def _invited(before: Identity | None, node: str, context: FederationContext) -> Identity:
    if before is not None and before.state == "joined":
        raise AlreadyExists(
            f"The node {node!r} has already joined.",
            code="node-joined",
            next=f"If it is gone for good, remove it first: maoctl federation remove {node}",
        )
    user = next_user(node, before)
    if (excess := len(invitation_user(user)) - pki.MAX_USER) > 0:
        raise InvalidInput(
            f"The name {node!r} is too long for a federation: with {invitation_user(user)!r} a certificate's"
            f" common name would be {excess} characters too long.",
            code="node-name-too-long",
            next=f"Give the node a name of at most {len(node) - excess} characters (MAO_NODE), then join.",
        )
    return Identity(node=node, user=user, invited_at=context.now)
