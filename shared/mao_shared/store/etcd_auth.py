"""Interpretation of etcd's authentication and authorisation errors; no I/O.

etcd 3.4 reports "permission denied" both for a missing permission and for a deleted user, and never names the
key. The caller then reads its own user and roles, which is always permitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mao_shared.errors import Forbidden, Unauthorized, UserUnknown

_PERMISSION_DENIED = "permission denied"
_NO_USER = "user name not found"
_NOT_ACCEPTED = ("invalid auth token", "user name is empty", "authentication failed")
_HANDSHAKE_REFUSED = "TSI_DATA_CORRUPTED"  # gRPC's message for a TLS alert after its handshake
_OUTDATED = ("revision in header is old", "revision of auth store is old")
Kind = Literal["read", "write", "readwrite"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission to grant on one key, or with `prefix` on all keys that start with it."""

    kind: Kind
    key: str
    prefix: bool = False

    @property
    def range_end(self) -> bytes:
        return range_end(self.key) if self.prefix else b""


@dataclass(frozen=True, slots=True)
class Access:
    """Access of a call to one key, or with `prefix` to all keys that start with it."""

    kind: Literal["read", "write"]
    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission as in etcd: [key, end); empty end: the key only, zero byte: all later keys too."""

    kind: Kind
    key: bytes
    end: bytes

    def covers(self, access: Access) -> bool:
        """Return True if this permission alone allows the access; etcd also merges adjacent ones."""
        if self.kind not in (access.kind, "readwrite"):
            return False
        start = access.key.encode()
        if not self.end:
            return self.key == start and not access.prefix
        last = range_end(access.key) if access.prefix else start + b"\0"
        return self.key <= start and (self.end == b"\0" or (last != b"\0" and last <= self.end))


def range_end(prefix: str) -> bytes:
    """Return the first key after all keys that start with `prefix` (UTF-8 never ends in byte 255)."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1]) if raw else b"\0"


def is_denied(details: str) -> bool:
    return _PERMISSION_DENIED in details


def is_no_user(details: str) -> bool:
    return _NO_USER in details


def is_not_accepted(details: str) -> bool:
    return any(text in details for text in _NOT_ACCEPTED)


def is_certificate_refused(details: str) -> bool:
    """Return True if the server ended the TLS handshake because of the client certificate."""
    return _HANDSHAKE_REFUSED in details


def is_outdated(details: str) -> bool:
    """Return True if users or roles changed during the call, which must be repeated."""
    return any(text in details for text in _OUTDATED)


def forbidden(user: str, accesses: Sequence[Access], permissions: Iterable[Permission]) -> Forbidden:
    """Return the error that names the accesses not covered by the user's permissions."""
    granted = list(permissions)
    lacking = [access for access in accesses if not any(permission.covers(access) for permission in granted)]
    what = ", ".join(_describe(access) for access in lacking or accesses) or "do this"
    return Forbidden(
        f"The federation's etcd does not let {user!r} {what}.",
        code="store-forbidden",
        next="A node may change only its own records and those of the registry; run this on a core node "
        "('maoctl federation list' shows them).",
    )


def identity_refused(user: str, why: str) -> Unauthorized:
    return Unauthorized(
        f"The federation's etcd does not accept {user!r}: {why}.",
        code="store-identity-refused",
        next=_AGAIN,
    )


def user_unknown(user: str) -> UserUnknown:
    return UserUnknown(
        f"The federation's etcd does not accept {user!r}: the user does not exist (any more).", next=_AGAIN
    )


_AGAIN = (
    "Check that both clocks are right. If they are, and the node should still be a member: 'maoctl "
    "federation leave' there, 'maoctl federation invite NODE' on a core node, then 'maoctl federation join "
    "TOKEN'."
)


def _describe(access: Access) -> str:
    return f"{access.kind} {access.key + '*' if access.prefix else access.key!r}"
