"""SSH host keys: what known_hosts says of a site, what the site shows, and the refusal in words.

libssh2 decides within the connection itself whether a key is right; this module only explains a refusal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mao_shared.errors import Forbidden

from .host_key_scan import scan_host_key

_SSH_URL = re.compile(r"ssh://(?:[^@/]*@)?(?P<host>\[[^\]]+\]|[^:/]+)(?::(?P<port>\d+))?(?:/|$)")
_SCP = re.compile(r"[^/@]+@(?P<host>\[[^\]]+\]|[^:/]+):")
DEFAULT_PORT = 22


@dataclass(frozen=True, slots=True)
class Site:
    host: str
    port: int

    @property
    def listed_as(self) -> str:
        """The name under which known_hosts has it."""
        return self.host if self.port == DEFAULT_PORT else f"[{self.host}]:{self.port}"


def site_of(url: str) -> Site | None:
    """Host and port of an ssh URL or scp form; None for any other URL."""
    match = _SSH_URL.match(url)
    if match:
        return Site(match["host"].strip("[]"), int(match["port"] or DEFAULT_PORT))
    match = None if "://" in url else _SCP.match(url)
    return Site(match["host"].strip("[]"), DEFAULT_PORT) if match else None


def read_known_hosts(home: str | None) -> str:
    """The text of known_hosts, empty when there is none or it cannot be read."""
    try:
        return (Path(home or "/") / ".ssh" / "known_hosts").read_text(errors="replace")
    except OSError:
        return ""


def listed_keys(known_hosts: str, site: Site) -> list[str]:
    """Fingerprints that known_hosts lists for a site, plain and hashed lines alike."""
    found = []
    for line in known_hosts.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith(("#", "@")):
            continue
        if any(_names(pattern, site) for pattern in fields[0].split(",")):
            found.append(fingerprint(_decode(fields[2])))
    return found


def _names(pattern: str, site: Site) -> bool:
    names = {site.listed_as, site.host}
    if not pattern.startswith("|1|"):
        return any(fnmatchcase(name, pattern.replace("[", "[[]")) for name in names)
    _, _, salt, digest = (pattern.split("|") + [""] * 4)[:4]
    expected = _decode(digest)
    return any(hmac.digest(_decode(salt), name.encode(), "sha1") == expected for name in names)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""


def fingerprint(key: bytes) -> str:
    """As ssh prints it: SHA256:… without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def scan(site: Site) -> str | None:
    """Fingerprint of the key that the site shows now; None when it could not be asked."""
    key = scan_host_key(site.host, site.port)
    return None if key is None else fingerprint(key)


def refusal(site: Site, listed: list[str], shown: str | None) -> Forbidden:
    """Why the site was not trusted: it is not listed, or it is listed with other keys."""
    port = "" if site.port == DEFAULT_PORT else f"-p {site.port} "
    add = f"ssh-keyscan {port}{site.host} >> KEY_DIRECTORY/known_hosts"
    key = f"It shows {shown}" if shown else "Its key could not be read again"
    if not listed:
        return Forbidden(
            f"The host key of {site.listed_as} is not in known_hosts, so it is not trusted. {key}.",
            code="host-key-unknown",
            next=f"Compare the fingerprint with what the server's operator publishes, then: {add}",
            host=site.listed_as,
            fingerprint=shown,
        )
    return Forbidden(
        f"The host key of {site.listed_as} is not the one in known_hosts. {key}, "
        f"listed: {', '.join(listed)}. Somebody may be in between.",
        code="host-key-changed",
        next="Ask the server's operator. If the key was renewed: ssh-keygen -R "
        f"'{site.listed_as}' -f KEY_DIRECTORY/known_hosts && {add}",
        host=site.listed_as,
        fingerprint=shown,
    )
