"""What libgit2 reports, as the exceptions of MAO."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pygit2

from mao_datamgmt import host_keys
from mao_datamgmt.full import disk_full, is_full
from mao_shared.errors import Forbidden, InvalidInput, MaoError, RemoteUnavailable, Unavailable

from .remote_access import local_path

_ABSENT = re.compile(
    r"does not appear to be a git repository|could not find repository|unsupported URL protocol"
    r"|not found|status code:? 404|failed to resolve path|does not exist",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"authentication|status code:? 40[13]|permission denied|access denied|no callback set", re.IGNORECASE
)
_MOVED = re.compile(
    r"non-?fast-?forward|not a simple fast-forward|not present locally|fetch first|stale info|needs force"
    r"|cannot lock ref|failed to lock|failed to update ref|reference already exists|is at \S+ but expected",
    re.IGNORECASE,
)
# What a hook says is anybody's words, so that these are looked for first.
_HOOK = re.compile(r"hook|declined|quota|protected", re.IGNORECASE)


TROUBLE = (OSError, pygit2.GitError, KeyError, ValueError)
"""What is not translated otherwise: this node's disk fails, or objects of a clone are missing or broken
(for which pygit2 raises KeyError and ValueError)."""


class RemoteMoved(Exception):
    """A push lost the race: the remote's branch has commits that we have not built upon."""


class MergeConflict(Exception):
    """Two sides changed the same files. `commit` is the one that could not be replayed, if it was one."""

    def __init__(self, paths: list[str], commit: str | None = None) -> None:
        super().__init__(", ".join(paths[:5]))
        self.paths = paths
        self.commit = commit


def refusal_of(url: str, branch: str, reason: str) -> MaoError | RemoteMoved:
    """What a server's word on one branch of a push means: a lost race, or that it does not want it."""
    if _MOVED.search(reason) and not _HOOK.search(reason):
        return RemoteMoved(reason)
    return Forbidden(
        f"The remote {url} refused the push to {branch}: {reason}.",
        code="push-refused",
        next="Allow this node to push its own branch and ground-truth there (branch protection, hooks).",
        remote=url,
    )


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns what a network operation on `url` raises into ours; RemoteMoved and MaoError pass."""
    try:
        yield
    except pygit2.GitError as error:
        raise to_error(error, url) from error


def to_error(error: pygit2.GitError, url: str) -> MaoError | RemoteMoved:
    """The exception for a failed network operation on `url`."""
    message = str(error).strip().rstrip(".")
    if is_full(error):
        return disk_full(f"there was no room while talking with {url}")
    if isinstance(error, pygit2.CertificateError):
        return _certificate(url, message)
    if isinstance(error, pygit2.AuthError) or _REFUSED.search(message):
        return auth_failed(url, message)
    if _MOVED.search(message):
        return RemoteMoved(message)
    if _ABSENT.search(message):
        return unreachable(url, message)
    return RemoteUnavailable(
        f"The remote {url} does not answer: {message}.",
        next="Check the network and the server; the node goes on with what it has and tries again.",
        remote=url,
    )


def branch_busy(branch: str) -> Unavailable:
    """Somebody else moved a branch of ours while we worked on it."""
    return Unavailable(
        f"The branch {branch} was moved by another process while we worked on it.",
        code="branch-busy",
        next="It is tried again. Only one data manager may run on a node.",
    )


def unreachable(url: str, why: str) -> InvalidInput:
    """There is no repository at `url`. What libgit2 says of a path is of its transports, not of the path."""
    because = "" if local_path(url) is not None else f": {why}"
    return InvalidInput(
        f"There is no git repository at {url}{because}.",
        code="dataset-unreachable",
        next=f"Check it: git ls-remote {url}. 'maoctl dataset init NAME' makes a repository on this node.",
        remote=url,
    )


def auth_failed(url: str, why: str) -> Forbidden:
    """The remote did not let us in."""
    return Forbidden(
        f"The remote {url} refused this node: {why}.",
        code="remote-auth-failed",
        next="Put a private key that the remote knows into the key directory (id_ed25519 or id_rsa, without "
        "passphrase) and give it write access there.",
        remote=url,
    )


def _certificate(url: str, message: str) -> MaoError:
    site = host_keys.site_of(url)
    if site is None:
        return Forbidden(
            f"The certificate of {url} is not trusted: {message}.",
            code="remote-certificate-refused",
            next="Install the authority's certificate on the node or use another URL.",
            remote=url,
        )
    return host_keys.refusal(site, host_keys.listed_keys(_known_hosts(), site), host_keys.scan(site))


def _known_hosts() -> str:
    return host_keys.read_known_hosts(pygit2.settings.homedir)
