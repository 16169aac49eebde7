"""SSH host keys: what known_hosts lists for a host, what the host shows, and the refusal in words.

Asks an SSH server for its host key, as ssh-keyscan does: half a key exchange (RFC 4253, 5656).

Nothing is verified here and no session comes about; the answer is only shown to a person.

SSH host keys: what known_hosts says of a site, what the site shows, and the refusal in words.

libssh2 decides within the connection itself whether a key is right. It knows plain and hashed names only, so
it is given a known_hosts of ours, with plain lines for the sites that are spoken to, made of the operator's
by OpenSSH's rules: patterns, CRLF line ends, `@revoked`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mao_git.repository import KEYS, TRUSTED
from mao_shared.errors import Forbidden, MaoError, RemoteUnavailable

_TIMEOUT = 3.0  # seconds

_MAX_PACKET = 65536

_KEXINIT, _ECDH_INIT, _ECDH_REPLY = 20, 30, 31

_CURVE_POINT = bytes([9]) + bytes(31)  # any valid X25519 public key will do; this is the base point

_ALGORITHMS = (
    b"curve25519-sha256,curve25519-sha256@libssh.org",
    b"ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256",
    *([b"aes128-ctr,aes256-ctr,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"] * 2),
    *([b"hmac-sha2-256,hmac-sha2-512"] * 2),
    *([b"none"] * 2),
    *([b""] * 2),
)


def scan_host_key(host: str, port: int) -> bytes | None:
    """The server's public host key in wire format; None when it does not answer as an SSH server does."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as connection:
            connection.settimeout(_TIMEOUT)
            return _exchange(connection)
    except (OSError, struct.error, EOFError):
        return None


def _exchange(connection: socket.socket) -> bytes | None:
    with connection.makefile("rb") as stream:
        connection.sendall(b"SSH-2.0-mao_keyscan\r\n")
        for _ in range(50):  # a server may greet before it says its version
            if stream.readline(1024).startswith(b"SSH-"):
                break
        else:
            return None
        names = b"".join(_string(each) for each in _ALGORITHMS)
        connection.sendall(_packet(bytes([_KEXINIT]) + os.urandom(16) + names + bytes(5)))
        connection.sendall(_packet(bytes([_ECDH_INIT]) + _string(_CURVE_POINT)))
        for _ in range(10):
            payload = _read_packet(stream.read)
            if payload[0] == _ECDH_REPLY:
                (length,) = struct.unpack_from(">I", payload, 1)
                return payload[5 : 5 + length]
    return None


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _packet(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def _read_packet(read: Callable[[int], bytes]) -> bytes:
    length, padding = struct.unpack(">IB", read(5))
    if not padding + 2 <= length <= _MAX_PACKET:
        raise EOFError("not an SSH packet")
    body = read(length - 1)
    if len(body) < length - 1:
        raise EOFError("the server closed the connection")
    return body[: length - 1 - padding]


_SSH_URL = re.compile(r"ssh://(?:[^@/]*@)?(?P<host>\[[^\]]+\]|[^:/]+)(?::(?P<port>\d+))?(?:/|$)")

_SCP = re.compile(r"[^/@]+@(?P<host>\[[^\]]+\]|[^:/]+):")

DEFAULT_PORT = 22

_KINDS = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ssh-dss",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
    }
)


"""Of keys that libssh2 knows."""


@dataclass(frozen=True, slots=True)
class SshHost:
    host: str
    port: int

    @property
    def listed_as(self) -> str:
        """The name under which known_hosts has it."""
        return self.host if self.port == DEFAULT_PORT else f"[{self.host}]:{self.port}"


def ssh_host_of(url: str) -> SshHost | None:
    """Host and port of an ssh URL or scp form; None for any other URL."""
    match = _SSH_URL.match(url)
    if match:
        return SshHost(match["host"].strip("[]"), int(match["port"] or DEFAULT_PORT))
    match = None if "://" in url else _SCP.match(url)
    return SshHost(match["host"].strip("[]"), DEFAULT_PORT) if match else None


def known_hosts_of(home: str | Path) -> Path:
    """The operator's known_hosts, as `library.configure` has linked it."""
    return Path(home) / KEYS / "known_hosts"


def read_known_hosts(home: str | Path) -> str:
    """The text of the operator's known_hosts, empty when there is none or it cannot be read."""
    try:
        return known_hosts_of(home).read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class KnownHostKeys:
    """What known_hosts has of a site. `keys`: the trusted ones, as kind and base64 text; `revoked`: those
    that are not, whatever else is said; `authority`: a certificate authority is named for it."""

    keys: list[tuple[str, str]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    authority: bool = False

    @property
    def fingerprints(self) -> list[str]:
        return [fingerprint(_decode(key)) for _, key in self.keys]


def known_keys(known_hosts: str, site: SshHost) -> KnownHostKeys:
    """As ssh reads the file: a site at another port may be listed by its host alone."""
    found = _listed_as(known_hosts, site.listed_as)
    if not found.keys and not found.authority and site.listed_as != site.host:
        plain = _listed_as(known_hosts, site.host)
        found = KnownHostKeys(plain.keys, found.revoked + plain.revoked, plain.authority)
    keys = [(kind, key) for kind, key in found.keys if key not in found.revoked]
    return KnownHostKeys(keys, found.revoked, found.authority)


def listed_keys(known_hosts: str, site: SshHost) -> list[str]:
    """Fingerprints that known_hosts lists for a site."""
    return known_keys(known_hosts, site).fingerprints


def _listed_as(known_hosts: str, name: str) -> KnownHostKeys:
    keys: list[tuple[str, str]] = []
    revoked: list[str] = []
    authority = False
    for mark, patterns, kind, key in _lines(known_hosts):
        if not _matches(patterns, name.lower()):
            continue
        if mark == "@revoked":
            revoked.append(key)
        elif mark == "@cert-authority":
            authority = True
        elif not mark and (kind, key) not in keys:
            keys.append((kind, key))
    return KnownHostKeys(keys, revoked, authority)


def _lines(known_hosts: str) -> Iterator[tuple[str, str, str, str]]:
    """Marker or ``, names, kind and key of each line that holds a key."""
    for line in known_hosts.splitlines():
        fields = line.split()
        mark = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) >= 3 and not fields[0].startswith("#") and _decode(fields[2]):
            yield mark, fields[0], fields[1], fields[2]


def _matches(patterns: str, name: str) -> bool:
    """Whether a list of patterns names a site; one with '!' before it takes what the others give."""
    if patterns.startswith("|1|"):
        _, _, salt, digest = (patterns.split("|") + [""] * 4)[:4]
        return hmac.digest(_decode(salt), name.encode(), "sha1") == _decode(digest)
    each = patterns.lower().split(",")
    if any(_fits(one[1:], name) for one in each if one.startswith("!")):
        return False
    return any(_fits(one, name) for one in each if not one.startswith("!"))


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


# what libssh2 is given

_admitted: dict[str, set[SshHost]] = {}

_writing = threading.Lock()


def admit(home: str | Path, site: SshHost) -> None:
    """Lets libssh2 find what the operator's known_hosts says of a site now. Raises OSError. Blocks."""
    with _writing:
        sites = _admitted.setdefault(str(home), set())
        sites.add(site)
        text = read_known_hosts(home)
        lines = [
            f"{each.listed_as} {kind} {key}\n"
            for each in sorted(sites, key=lambda one: one.listed_as)
            for kind, key in known_keys(text, each).keys
            if kind in _KINDS
        ]
        path = Path(home) / TRUSTED / "known_hosts"
        wanted = "".join(lines)
        if not path.is_file() or path.read_text() != wanted:
            temporary = path.with_suffix(".new")
            temporary.write_text(wanted)
            temporary.replace(path)


# what is told of a refusal


def fingerprint(key: bytes) -> str:
    """As ssh prints it: SHA256:… without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def scan(site: SshHost) -> bytes | None:
    """The key that the site shows now; None when it could not be asked."""
    return scan_host_key(site.host, site.port)


def refusal(site: SshHost, found: KnownHostKeys, shown: bytes | None, file_fault: str = "") -> MaoError:
    """Why the site was not trusted: it is not listed, or with other keys only. Pure.

    `shown`: see `scan`; `file_fault`: see `file_fault`.
    """
    port = "" if site.port == DEFAULT_PORT else f"-p {site.port} "
    add = f"ssh-keyscan {port}{site.host} >> KEY_DIRECTORY/known_hosts"
    key = f"It shows {_kind_of(shown)} {fingerprint(shown)}" if shown else "Its key could not be read again"
    facts = {"host": site.listed_as, "fingerprint": fingerprint(shown) if shown else None}
    name = site.listed_as
    if shown and base64.b64encode(shown).decode() in found.revoked:
        return Forbidden(
            f"The host key of {name} is marked @revoked in known_hosts. {key}.",
            code="host-key-revoked",
            next="Ask the server's operator for its new key; take the mark out only if it is wrong.",
            **facts,
        )
    if not found.keys:
        why = _AUTHORITY_ONLY if found.authority else file_fault
        why = f" ({why})" if why else ""
        return Forbidden(
            f"The host key of {name} is not in known_hosts, so it is not trusted{why}. {key}.",
            code="host-key-unknown",
            next=f"Compare the fingerprint with what the server's operator publishes, then: {add}",
            **facts,
        )
    if shown and fingerprint(shown) in found.fingerprints:  # known_hosts was mended just now
        return RemoteUnavailable(
            f"{name} was not trusted when it was called; by now its key is the listed one.",
            next="It is tried again.",
            **facts,
        )
    listed_as = ", ".join(
        f"{kind} {one}" for (kind, _), one in zip(found.keys, found.fingerprints, strict=True)
    )
    if shown and _kind_of(shown) not in {kind for kind, _ in found.keys}:
        return Forbidden(
            f"{name} shows a host key of another kind than known_hosts has. {key}, listed: {listed_as}.",
            code="host-key-unknown",
            next=f"Compare the fingerprint with what the server's operator publishes, then: {add}",
            **facts,
        )
    return Forbidden(
        f"The host key of {name} is not the one in known_hosts. {key}, "
        f"listed: {listed_as}. Somebody may be in between.",
        code="host-key-changed",
        next="Ask the server's operator. If the key was renewed: ssh-keygen -R "
        f"'{name}' -f KEY_DIRECTORY/known_hosts && {add}",
        **facts,
    )


_AUTHORITY_ONLY = "there is a @cert-authority line, and host certificates are not read here"


def file_fault(home: str | Path) -> str:
    """Why nothing is read from known_hosts; `` when it can be read. Blocks."""
    try:
        if b"\0" in known_hosts_of(home).read_bytes():
            return f"known_hosts: {NO_TEXT}"
    except FileNotFoundError:
        return "there is no file known_hosts in the key directory, MAO_SSH_DIR"
    except OSError as error:
        return f"known_hosts cannot be read: {error.strerror}"
    return ""


def _kind_of(key: bytes) -> str:
    """The name of the algorithm, with which the key begins."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", errors="replace")


NO_TEXT = "it is not text in UTF-8 (PowerShell's > writes UTF-16), so nothing is read from it"
