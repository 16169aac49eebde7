"""SSH host keys: the keys listed in known_hosts, the key that a host presents, the error if they differ.

libssh2 decides within the connection if a key is trusted. It knows plain and hashed names only, so it is
given a known_hosts with plain lines for the hosts that we connect to, generated from the operator's file by
OpenSSH's rules: patterns, CRLF line ends, `@revoked`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mao_git.repository import KEYS, TRUSTED
from mao_shared.errors import Forbidden, MaoError, RemoteUnavailable

DEFAULT_PORT = 22
NO_TEXT = "it is not UTF-8 text (PowerShell's > writes UTF-16), so nothing is read from it"
_NOT_SUPPORTED = "there is a @cert-authority line, and host certificates are not supported"
_SSH_URL = re.compile(r"ssh://(?:[^@/]*@)?(?P<host>\[[^\]]+\]|[^:/]+)(?::(?P<port>\d+))?(?:/|$)")
_SCP = re.compile(r"[^/@]+@(?P<host>\[[^\]]+\]|[^:/]+):")
_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "ssh-dss",
)
"""Algorithms of host keys that libssh2 supports, best first."""
_SCAN_SECONDS = 3  # seconds for each connection of ssh-keyscan


@dataclass(frozen=True, slots=True)
class SshHost:
    """The host and port of an SSH remote."""

    host: str
    port: int

    @property
    def listed_as(self) -> str:
        """The host's name in known_hosts."""
        return self.host if self.port == DEFAULT_PORT else f"[{self.host}]:{self.port}"


def parse_ssh_host(url: str) -> SshHost | None:
    """Parse host and port of an SSH URL or the scp form; None for any other URL."""
    match = _SSH_URL.match(url)
    if match:
        return SshHost(match["host"].strip("[]"), int(match["port"] or DEFAULT_PORT))
    match = None if "://" in url else _SCP.match(url)
    return SshHost(match["host"].strip("[]"), DEFAULT_PORT) if match else None


# the keys listed in known_hosts


def known_hosts_path(home: str | Path) -> Path:
    """Return the path of the operator's known_hosts, as linked by `repository.configure`."""
    return Path(home) / KEYS / "known_hosts"


def read_known_hosts(home: str | Path) -> str:
    """Return the text of the operator's known_hosts; empty if it is missing or unreadable."""
    try:
        return known_hosts_path(home).read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


def known_hosts_fault(home: str | Path) -> str:
    """Return why known_hosts cannot be read; empty if it can. Blocking."""
    try:
        if b"\0" in known_hosts_path(home).read_bytes():
            return f"known_hosts: {NO_TEXT}"
    except FileNotFoundError:
        return "there is no file known_hosts in the key directory, MAO_SSH_DIR"
    except OSError as error:
        return f"known_hosts cannot be read: {error.strerror}"
    return ""


@dataclass(frozen=True, slots=True)
class KnownHostKeys:
    """The keys listed for a host. `keys`: trusted keys, as algorithm and base64 text; `revoked`: keys
    that are never trusted; `authority`: a certificate authority is listed for the host.
    """

    keys: list[tuple[str, str]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    authority: bool = False

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of `keys`, in their order."""
        return [fingerprint(_decode(key)) for _, key in self.keys]


def known_keys(known_hosts: str, host: SshHost) -> KnownHostKeys:
    """Find a host's keys as ssh does: a host at another port may be listed by its name alone."""
    found = _find_host_keys(known_hosts, host.listed_as)
    if not found.keys and not found.authority and host.listed_as != host.host:
        plain = _find_host_keys(known_hosts, host.host)
        found = KnownHostKeys(plain.keys, found.revoked + plain.revoked, plain.authority)
    keys = [(algorithm, key) for algorithm, key in found.keys if key not in found.revoked]
    return KnownHostKeys(keys, found.revoked, found.authority)


def _find_host_keys(known_hosts: str, name: str) -> KnownHostKeys:
    keys: list[tuple[str, str]] = []
    revoked: list[str] = []
    authority = False
    for marker, patterns, algorithm, key in _lines(known_hosts):
        if not _matches(patterns, name.lower()):
            continue
        if marker == "@revoked":
            revoked.append(key)
        elif marker == "@cert-authority":
            authority = True
        elif not marker and (algorithm, key) not in keys:
            keys.append((algorithm, key))
    return KnownHostKeys(keys, revoked, authority)


def _lines(known_hosts: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield marker (may be empty), names, algorithm and key of each line with a key."""
    for line in known_hosts.splitlines():
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) >= 3 and not fields[0].startswith("#") and _decode(fields[2]):
            yield marker, fields[0], fields[1], fields[2]


def _matches(patterns: str, name: str) -> bool:
    """True if a list of patterns matches a host; a pattern that begins with '!' overrides the others."""
    if patterns.startswith("|1|"):
        _, _, salt, digest = (patterns.split("|") + [""] * 4)[:4]
        return hmac.digest(_decode(salt), name.encode(), "sha1") == _decode(digest)
    found = False
    for pattern in patterns.lower().split(","):
        if fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


# the known_hosts of libssh2

_hosts: dict[str, set[SshHost]] = {}  # hosts that we connected to, by libgit2's home
_writing = threading.Lock()


def trust_listed(home: str | Path, host: SshHost) -> None:
    """Add the keys that the operator's known_hosts lists for a host to the file of libssh2.

    Raises OSError. Blocking.
    """
    with _writing:
        hosts = _hosts.setdefault(str(home), set())
        hosts.add(host)
        text = read_known_hosts(home)
        wanted = "".join(
            f"{entry.listed_as} {algorithm} {key}\n"
            for entry in sorted(hosts, key=lambda one: one.listed_as)
            for algorithm, key in known_keys(text, entry).keys
            if algorithm in _ALGORITHMS
        )
        path = Path(home) / TRUSTED / "known_hosts"
        if not path.is_file() or path.read_text() != wanted:
            temporary = path.with_suffix(".new")
            temporary.write_text(wanted)
            temporary.replace(path)


# the error for an untrusted host


def scan_host_key(host: SshHost) -> bytes | None:
    """Return the best key that the host presents now, in wire format; None if unreachable. Blocking.

    The key is not verified: it is only shown to the user.
    """
    argv = ["ssh-keyscan", "-T", str(_SCAN_SECONDS), "-p", str(host.port), "-t", "ed25519,ecdsa,rsa"]
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the host comes after `--`)
            [*argv, "--", host.host],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=4 * _SCAN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    keys = {algorithm: key for _, _, algorithm, key in _lines(done.stdout)}
    return next((_decode(keys[algorithm]) for algorithm in _ALGORITHMS if algorithm in keys), None)


def fingerprint(key: bytes) -> str:
    """Format a key's fingerprint as ssh does: SHA256:… without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def untrusted(host: SshHost, found: KnownHostKeys, shown: bytes | None, fault: str = "") -> MaoError:
    """Return the error for a host that is not listed, or is listed with other keys. Pure.

    `shown`: see `scan_host_key`; `fault`: see `known_hosts_fault`.
    """
    name = host.listed_as
    port = "" if host.port == DEFAULT_PORT else f"-p {host.port} "
    add = f"ssh-keyscan {port}{host.host} >> KEY_DIRECTORY/known_hosts"
    key = (
        f"It shows {_key_algorithm(shown)} {fingerprint(shown)}"
        if shown
        else "Its key could not be read again"
    )
    facts = {"host": name, "fingerprint": fingerprint(shown) if shown else None}
    if shown and base64.b64encode(shown).decode() in found.revoked:
        return Forbidden(
            f"The host key of {name} is marked @revoked in known_hosts. {key}.",
            code="host-key-revoked",
            next="Ask the server's operator for its new key; remove the marker only if it is wrong.",
            **facts,
        )
    if shown and fingerprint(shown) in found.fingerprints:  # known_hosts was corrected just now
        return RemoteUnavailable(
            f"{name} was not trusted when it was called; its key is listed now.",
            next="It is retried automatically.",
            **facts,
        )
    compare = f"Compare the fingerprint with what the server's operator publishes, then: {add}"
    if not found.keys:
        why = _NOT_SUPPORTED if found.authority else fault
        why = f" ({why})" if why else ""
        return Forbidden(
            f"The host key of {name} is not in known_hosts, so it is not trusted{why}. {key}.",
            code="host-key-unknown",
            next=compare,
            **facts,
        )
    listed = ", ".join(
        f"{kind} {digest}" for (kind, _), digest in zip(found.keys, found.fingerprints, strict=True)
    )
    if shown and _key_algorithm(shown) not in {algorithm for algorithm, _ in found.keys}:
        return Forbidden(
            f"{name} shows a host key of another algorithm than known_hosts lists. {key}, listed: {listed}.",
            code="host-key-unknown",
            next=compare,
            **facts,
        )
    return Forbidden(
        f"The host key of {name} is not the one in known_hosts. {key}, listed: {listed}. "
        "Somebody may intercept the connection.",
        code="host-key-changed",
        next="Ask the server's operator. If the key was renewed: ssh-keygen -R "
        f"'{name}' -f KEY_DIRECTORY/known_hosts && {add}",
        **facts,
    )


def _key_algorithm(key: bytes) -> str:
    """Return the name of the algorithm, with which a key begins."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", errors="replace")
