"""Which remotes a dataset may have: a pure judgement of the URL's text.

Allowed are an absolute path, file://, https://, ssh:// and user@host:path. Everything else is refused, since
git runs programs for some URLs (`ext::sh -c …`), ssh takes hosts that begin with '-' for options, and a
record is no place for secrets.
"""

from __future__ import annotations

import re
from posixpath import normpath
from urllib.parse import unquote

_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]|%(?:[01][0-9a-fA-F]|7[fF])")
_HELPER = re.compile(r"[^/@\[]*::")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>.*)")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SITE = re.compile(rf"(?:(?P<user>{_USER})@)?{_HOST}(?::(?P<port>[0-9]{{1,5}}))?")
_SCP = re.compile(rf"{_USER}@{_HOST}:(?P<path>.+)")
_SECRET = re.compile(r"https?://[^/@\s]+@|://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
_PORTS = {"https": ":443", "ssh": ":22"}

ALLOWED = "an absolute path, file:///path, https://host/path, ssh://user@host/path or user@host:path"


def carries_secret(text: str) -> bool:
    """Whether a URL in the text has a password before its host, or a token, as https:// URLs can."""
    return bool(_SECRET.search(text))


def place_of(url: str) -> str:
    """The same text for the remotes of one repository, however they are written; for URLs that may be used.

    Of `git@host:x`, `ssh://git@host/x.git` and `https://host/x/` it is the same, as on every forge.
    """
    match = _URL.fullmatch(url)
    if url.startswith("/") or (match and match["scheme"].lower() == "file"):
        path = unquote(match["path"]) if match else url
        return normpath("/" + path.strip("/")).removesuffix("/.git")
    if match:
        scheme, path = match["scheme"].lower(), unquote(match["path"])
        user, _, site = match["authority"].rpartition("@")
    else:
        scheme, (site, _, path) = "ssh", url.partition(":")
        user, _, site = site.rpartition("@")
    site = site.lower().removesuffix(_PORTS.get(scheme, ""))
    whose = "" if user in ("", "git") else f"{user}@"
    return f"{whose}{site}{normpath('/' + path.strip('/')).removesuffix('.git')}"


def master_fault(url: str) -> str | None:
    """Why `url` may not be a dataset's remote; None when it may."""
    if url.startswith("-"):
        return "it begins with '-' and could be taken for an option"
    if _HELPER.match(url):
        return "it names a remote helper (x::y), that is, a program to run"
    if _CONTROL.search(url):
        return "it holds a space or control character"
    if url.startswith("/"):
        return _path_fault(url)
    if match := _URL.fullmatch(url):
        return _url_fault(match["scheme"].lower(), match["authority"], match["path"])
    if match := _SCP.fullmatch(url):
        return _path_fault(match["path"])
    return "it is neither a path from the root nor a URL that is allowed"


def _url_fault(scheme: str, authority: str, path: str) -> str | None:
    if scheme == "http":
        return "http:// is neither private nor safe from changes on the way"
    if scheme not in ("file", "https", "ssh"):
        return f"{scheme}:// is not allowed"
    if ":" in authority.rpartition("@")[0]:
        return "it carries a password"
    if scheme == "file":
        return _path_fault(path) if authority in ("", "localhost") else "a file:// URL names no host"
    return _site_fault(scheme, authority) or _path_fault(path)


def _site_fault(scheme: str, authority: str) -> str | None:
    site = _SITE.fullmatch(authority)
    if not site or int(site["port"] or 1) not in range(1, 65536):
        return "its user, host or port is malformed"
    if scheme == "https" and site["user"]:
        return "what stands before '@' in an https:// URL is a secret or serves none"
    return None


def _path_fault(path: str) -> str | None:
    if not path.strip("/"):
        return "it has no path"
    if path.startswith("-"):
        return "its path begins with '-' and could be taken for an option"
    if ".." in path.split("/"):
        return "'..' is in its path"
    if "?" in path or "#" in path:
        return "'?' or '#' is in it, where secrets hide"
    return None
