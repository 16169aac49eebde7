"""An invitation as one line of text: where the federation is, how to know it, and a credential.

`mao1.` + base64url(zlib(JSON)): zlib's checksum tells a token that was cut or mistyped.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from mao_shared.errors import InvalidInput
from mao_shared.models.common import Name, NodeName, Record, Timestamp
from mao_shared.models.federation import Endpoint
from mao_shared.store.endpoints import parse_endpoints

from . import pki

PREFIX = "mao1."
_MAX_TEXT = 40_000  # characters; a token has about 3000
_MAX_BYTES = 60_000


class Token(Record):
    """What `federation invite` hands out. `fingerprint`: SHA-256 of the authority's certificate."""

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
) -> Token:
    """User, fingerprint and expiry are those of the certificates."""
    facts = pki.facts(certificate)
    return Token(
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


def write_token(token: Token) -> str:
    packed = zlib.compress(token.model_dump_json().encode(), 9)
    return PREFIX + base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_token(text: str, *, now: datetime | None = None) -> Token:
    """Raises InvalidInput: `token-invalid` for what is damaged or does not fit together, `token-expired`."""
    try:
        token = Token.model_validate_json(_unpack("".join(text.split())))
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "content"
        raise _invalid(f"its {place} is missing or not of the right form") from None
    _check(token)
    if token.expires_at <= (now or datetime.now(UTC)):
        raise InvalidInput(
            f"The invitation of {token.node} to {token.federation} expired at "
            f"{token.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
            code="token-expired",
            next=f"Ask for a new one: 'maoctl federation invite {token.node}' on a core node.",
        )
    return token


def _unpack(text: str) -> bytes:
    if not text:
        raise _invalid("it is empty")
    if not text.startswith(PREFIX):
        raise _invalid(f"it does not begin with {PREFIX!r}")
    if len(text) > _MAX_TEXT:
        raise _invalid("it is too long")
    body = text.removeprefix(PREFIX)
    decoder = zlib.decompressobj()
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        content = decoder.decompress(packed, _MAX_BYTES)
    except (ValueError, binascii.Error, zlib.error):
        raise _invalid("a part of it is missing or mistyped") from None
    if not decoder.eof or decoder.unused_data:
        raise _invalid("a part of it is missing or mistyped")
    return content


def _check(token: Token) -> None:
    """The parts belong together; whoever hands a token to a person can still make up all of them."""
    try:
        parse_endpoints(",".join(token.endpoints))
        facts = pki.facts(token.certificate)
        ours = pki.belongs_to(token.key, token.certificate)
        fingerprint = pki.facts(token.ca).fingerprint
    except (ValueError, InvalidInput) as error:
        raise _invalid(str(error)) from None
    if fingerprint != token.fingerprint:
        raise _invalid("its fingerprint is not that of its authority's certificate")
    if not pki.is_signed_by(token.certificate, token.ca) or not ours:
        raise _invalid("its certificate, key and authority do not belong together")
    if facts.user != token.user or facts.not_after != token.expires_at:
        raise _invalid("its certificate is for another user or time")


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(
        f"This is not a whole, unchanged invitation: {why}.",
        code="token-invalid",
        next="Copy the whole line that 'maoctl federation invite' printed.",
    )
