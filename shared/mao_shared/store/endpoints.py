"""Addresses of etcd, and the TLS files of its clients."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mao_shared.errors import StoreUnavailable

DEFAULT_PORT = 2379
CALL_TIMEOUT = 5.0  # seconds for one call to etcd
_UNIX = re.compile(r"unix:///[^\s,]+")
_ENDPOINT = re.compile(r"(?:http://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")


def parse_endpoints(text: str) -> list[str]:
    """Parse `host[:port][,…]` into a list of `host:port`; raises ValueError for https and other URLs.

    `unix:///path` is returned unchanged, as gRPC expects it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError("missing etcd endpoint")
    endpoints: list[str] = []
    for part in parts:
        match = _ENDPOINT.fullmatch(part)
        if _UNIX.fullmatch(part):
            endpoints.append(part)
        elif match is not None:
            endpoints.append(f"{match[1]}:{match[2] or DEFAULT_PORT}")
        else:
            raise ValueError(f"{part!r} is not an etcd endpoint; write host:port, for example 127.0.0.1:2379")
    return endpoints


_COMMON_NAME = bytes.fromhex("0603550403")  # OID 2.5.4.3
_UTC_TIME = 0x17  # with a two-digit year, up to 2049
_CONSTRUCTED_0 = 0xA0  # the optional leading version


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the authority's certificate, the client's certificate and its key."""

    ca: Path
    certificate: Path
    key: Path

    def read(self) -> TlsMaterial:
        """Read the files; raises StoreUnavailable (`store-credentials`) if one is missing or invalid."""
        try:
            ca, certificate, key = (path.read_bytes() for path in (self.ca, self.certificate, self.key))
            return TlsMaterial(ca, certificate, key, *subject(certificate))
        except OSError as error:
            raise _unusable(f"{error.filename} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise _unusable(f"{self.certificate} does not hold a user's certificate") from error


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Contents of the files. `user`: the certificate's common name."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    user: str
    expires_at: datetime


def subject(certificate: bytes) -> tuple[str, datetime]:
    """Return common name and expiry of the first certificate in a PEM file; raises ValueError.

    Parses only what error messages need of DER; gRPC checks the certificate itself.
    """
    text = certificate.decode("ascii")
    end = "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") : text.index(end) + len(end)])
    try:
        signed = next(_elements(der))[1]
        fields = list(_elements(next(_elements(signed))[1]))
        at = 3 + (fields[0][0] == _CONSTRUCTED_0)
        validity, names = fields[at][1], fields[at + 1][1]
        return _common_name(names), _time(*list(_elements(validity))[1])
    except (IndexError, StopIteration) as error:
        raise ValueError("the certificate is damaged") from error


def _common_name(names: bytes) -> str:
    for _, relative in _elements(names):
        attribute = next(_elements(relative))[1]
        if attribute.startswith(_COMMON_NAME):
            return list(_elements(attribute))[1][1].decode()
    raise ValueError("the certificate has no common name")


def _time(tag: int, text: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode(), form).replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of a DER sequence; raises IndexError for a truncated one."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            raise IndexError
        yield tag, der[at : at + length]
        at += length


def _unusable(why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The federation's store cannot be opened: {why}.",
        code="store-credentials",
        next="Join the federation again with a new invitation: 'maoctl federation join TOKEN'.",
    )
