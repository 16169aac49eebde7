"""Validate the remote URLs of datasets, and detect two URLs of one repository.

Absolute paths, file://, https://, ssh:// and user@host:path are allowed. Everything else is rejected, since
git runs programs for some URLs (`ext::sh -c …`), ssh treats hosts that begin with '-' as options, and a
record must not contain secrets.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BLANK_OR_CODED = re.compile(r"[\x20\xa0]|%(?:[01][0-9a-fA-F]|7[fF])")
_HELPER = re.compile(r"[^/@\[]*::")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>.*)")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SITE = re.compile(rf"(?:(?P<user>{_USER})@)?{_HOST}(?::(?P<port>[0-9]{{1,5}}))?")
_SCP = re.compile(rf"{_USER}@{_HOST}:(?P<path>.+)")
_SECRET = re.compile(r"https?://[^/@\s]+@|://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
_PORT = re.compile(r":[0-9]+$")
_PORTS = {"https": "443", "ssh": "22"}
ALLOWED = "an absolute path, file:///path, https://host/path, ssh://user@host/path or user@host:path"


def has_secret(text: str) -> bool:
    """Return True if a URL in the text contains a password or token before its host."""
    return bool(_SECRET.search(text))


def local_path(url: str) -> Path | None:
    """Return the folder of a path or file:// URL; None for a remote over the network.

    Schemes are case-insensitive, as in git: `FILE:///x` is local too.
    """
    if url.startswith("/"):
        return Path(url)
    match = _URL.fullmatch(url)
    return Path(unquote(match["path"])) if match and match["scheme"].lower() == "file" else None


def normalized_url(url: str) -> str:
    """Return the URL for libgit2, which unlike git does not decode the path of an ssh:// URL."""
    match = _URL.fullmatch(url)
    if not match or match["scheme"].lower() != "ssh" or "%" not in match["path"]:
        return url
    authority, path = match["authority"], unquote(match["path"])
    if "[" in authority:  # brackets cannot be nested
        return f"ssh://{authority}{path}"
    return f"[{authority}]:{path.removeprefix('/') if path.startswith('/~') else path}"


def canonical_url(url: str) -> str:
    """Return a canonical form, equal for all allowed URLs of one repository.

    `git@host:x`, `ssh://git@host/x.git` and `https://host/x/` are equal, as on every forge. Folders lose
    their optional suffix `.git`; if folders with and without it exist, see `same_remote`.
    """
    folder = local_path(url)
    if folder is not None:
        return _without_git(normpath("/" + str(folder).strip("/")))
    match = _URL.fullmatch(url)
    if match:
        scheme, path = match["scheme"].lower(), unquote(match["path"])
        user, _, site = match["authority"].rpartition("@")
        if path.startswith("/~/"):  # relative to the user's home, like `user@host:path`
            path = path.removeprefix("/~")
    else:
        scheme, end = "ssh", url.find("]") + 1  # an IPv6 address contains colons
        site, _, path = url[end:].partition(":")
        user, _, site = (url[:end] + site).rpartition("@")
    user_part = "" if user in ("", "git") else f"{user}@"

    return f"{user_part}{_host_and_port(scheme, site)}{_without_git(normpath('/' + path.strip('/')))}"


def same_remote(url: str, other: str) -> bool:
    """Return True if two URLs refer to one repository, as far as local folders are accessible.

    Folders are compared by device and inode, so through links, `..` and bind mounts. Blocks on file system
    calls.
    """
    folders = [_seen(path) for path in map(local_path, (url, other)) if path is not None]
    if len(folders) == 2:
        identities = [_identity(folder) for folder in folders]
        if None not in identities:
            return identities[0] == identities[1]
        return canonical_url(str(folders[0])) == canonical_url(str(folders[1]))
    return not folders and canonical_url(url) == canonical_url(other)


def _seen(path: Path) -> Path:
    """Resolve a repository's folder; `x` may mean `x.git` or `x/.git`."""
    for folder in (path / ".git", path, path.with_name(f"{path.name}.git")):
        try:
            if folder.is_dir():
                return folder.resolve()
        except OSError:
            continue  # not accessible
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return device and inode of a folder, or None if it is not accessible."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _without_git(path: str) -> str:
    return path.removesuffix("/.git").removesuffix(".git")


def _host_and_port(scheme: str, site: str) -> str:
    """Return host and port in lower case, with compressed IPv6 addresses and without the default port."""
    host, _, port = site.lower().rpartition(":") if _PORT.search(site) else (site.lower(), "", "")
    if host.startswith("["):
        with suppress(ValueError):
            host = f"[{ip_address(host.strip('[]'))}]"
    number = str(int(port)) if port else ""
    return host if number in ("", _PORTS.get(scheme)) else f"{host}:{number}"


def remote_url_fault(url: str) -> str | None:
    """Return why `url` may not be a dataset's remote, or None."""
    if url.startswith("-"):
        return "it begins with '-' and could be taken for an option"
    if _HELPER.match(url):
        return "it names a remote helper (x::y), that is, a program to run"
    if _CONTROL.search(url):
        return "it holds a control character"
    if url.startswith("/"):  # a path has no percent-encoding, query or secret
        return _place_fault(url)
    if match := _URL.fullmatch(url):
        if _BLANK_OR_CODED.search(url):
            return "it holds a space or control character (write a space as %20 in a URL)"
        return _url_fault(match["scheme"].lower(), match["authority"], match["path"])
    if match := _SCP.fullmatch(url):
        return _path_fault(match["path"])
    return "it is neither an absolute path nor an allowed URL"


def _url_fault(scheme: str, authority: str, path: str) -> str | None:
    if scheme == "http":
        return "http:// is neither encrypted nor authenticated"
    if scheme not in ("file", "https", "ssh"):
        return f"{scheme}:// is not allowed"
    if ":" in authority.rpartition("@")[0]:
        return "it carries a password"
    if scheme == "file":
        return _path_fault(path) if authority in ("", "localhost") else "a file:// URL names no host"
    site = _SITE.fullmatch(authority)
    if not site or int(site["port"] or 1) not in range(1, 65536):
        return "its user, host or port is malformed"
    if scheme == "https" and site["user"]:
        return "an https:// URL must not have a user or secret before '@'"
    return _path_fault(path)


def _place_fault(path: str) -> str | None:
    if not path.strip("/"):
        return "it has no path"
    return "'..' is in its path" if ".." in path.split("/") else None


def _path_fault(path: str) -> str | None:
    if path.startswith("-"):
        return "its path begins with '-' and could be taken for an option"
    if fault := _place_fault(unquote(path)):
        return fault
    if "?" in path or "#" in path:
        return "it contains '?' or '#', which can hide secrets"
    return None
