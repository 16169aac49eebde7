"""Fetch and push; never a forced update of a branch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pygit2
from pygit2.enums import CredentialType, FetchPrune
from pygit2.remotes import TransferProgress

from mao_git.branches import (
    conflicting_branches,
    forget_remote,
    init_upstream_base,
    list_branches,
    note_pushed,
    note_seen,
    set_upstream_base,
)
from mao_git.errors import RemoteMoved
from mao_git.repository import FETCH_SPEC, HEADS, Repository
from mao_shared.errors import InvalidInput, MaoError
from mao_shared.git_urls import ALLOWED, normalized_url, remote_url_fault
from mao_shared.progress import report_progress

from . import access, host_keys
from .access import RemoteAccess
from .errors import (
    NOT_TAKEN,
    Refusal,
    at_remote,
    auth_failed,
    branch_refusal,
    from_remote,
    network_error,
    network_errors,
    no_key,
)
from .git_lfs import push_content
from .local import local_branches, local_default, push_local
from .unsupported import unsupported_error

# A branch replaced another's folder, or the other way round: `x/y` and `x` cannot exist together.
_NAME_CONFLICT = re.compile(
    r"parent is not directory|could not remove directory|exists; cannot create|path to reference .* collides"
    r"|there are (?:still refs under|refs beneath)|is a directory|not a directory",
    re.IGNORECASE,
)
_NO_BRANCH = "refs/heads/mao-none:refs/heads/mao-none"
_MAX_OUTPUT = 2000  # characters that are kept of a server's messages
_PROGRESS = re.compile(
    r"(?:Resolving deltas|Unpacking objects|Checking connectivity|Processing)\b", re.IGNORECASE
)


class _TransferCallbacks(pygit2.RemoteCallbacks):
    """Reports how many objects have arrived."""

    def transfer_progress(self, stats: TransferProgress) -> None:
        report_progress(stats.received_objects, stats.total_objects)


@dataclass(eq=False)
class _RemoteCallbacks(_TransferCallbacks):
    """Callbacks of one connection: offers each key once, and trusts only hosts found in known_hosts."""

    url: str
    access: RemoteAccess
    refused: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._keys: Iterator[Path] = iter(self.access.private_keys())
        self._offered: list[str] = []
        host = host_keys.parse_ssh_host(self.url)
        if host is not None:
            host_keys.trust_listed(pygit2.settings.homedir or "/", host)

    def credentials(
        self, _url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> pygit2.Username | pygit2.Keypair:
        user = username_from_url or "git"
        if allowed_types & CredentialType.SSH_KEY:
            key = next(self._keys, None)
            if key is not None:
                self._offered.append(key.name)
                return pygit2.Keypair(user, None, str(key), "")
            folder = self.access.key_dir
            if not self._offered:
                raise no_key(self.url, access.why_no_key(folder), access.key_advice(folder))
            others = [
                fault.text
                for fault in access.key_faults(folder)
                if fault.name in access.KEY_NAMES and not fault.usable
            ]
            unused = f"; not offered: {'; '.join(others)}" if others else ""
            offered = ", ".join(self._offered)
            raise auth_failed(self.url, f"it did not accept this node's keys ({offered}){unused}")
        if allowed_types & CredentialType.USERNAME:
            return pygit2.Username(user)
        raise auth_failed(self.url, "it asks for a password, and MAO has none")

    def certificate_check(self, certificate: None, valid: bool, host: bytes) -> bool:  # noqa: ARG002
        return valid  # for SSH: libssh2 found this key in known_hosts

    def sideband_progress(self, string: str) -> None:
        self.output = (self.output + string)[-_MAX_OUTPUT:]

    def message(self) -> str:
        """Return the output of the server's hooks and git as a sentence; empty if there is none."""
        lines = (
            re.sub(r"[^ -~\u00a1-\uffff]+", "", line).strip() for line in re.split(r"[\r\n]+", self.output)
        )
        text = "; ".join(line for line in lines if line and not _PROGRESS.match(line))
        return f" It says: {text}." if text else ""

    def push_update_reference(self, refname: str, message: str | None) -> None:
        if message is not None:
            self.refused[refname] = message


def check_url(url: str) -> None:
    """Raise InvalidInput for a URL that git must not be given; the registry checks it as well."""
    if fault := remote_url_fault(url):
        raise InvalidInput(
            f"The remote {url!r} is refused: {fault}.", code="dataset-url-refused", next=f"Give {ALLOWED}."
        )


def _remote(repo: Repository, url: str) -> pygit2.Remote:
    return repo.git.remotes.create_anonymous(normalized_url(url))


def fetch(repo: Repository, access: RemoteAccess, *, depth: int = 0) -> None:
    """Fetch all branches of the remote. Raises what `errors.network_error` returns.

    `depth`: for a new clone, how many commits of each branch it begins with (0: all). A remote on this
    machine always gives all.
    """
    check_url(repo.url)
    for branch in list_branches(repo):
        init_upstream_base(repo, branch)
    path = access.local(repo.url)  # where a remote on this machine really is, whatever its URL leads to later
    if path is not None:
        with at_remote(repo.url, path):
            there = local_branches(path)
        seen = list_branches(repo, remote=True)
        if any(conflicting_branches(name, seen) for name in there.keys() - seen.keys()):
            forget_remote(repo, there)
        if there != seen:
            with from_remote(repo.url, path, repo.path):
                there_itself = repo.git.remotes.create_anonymous(str(path))
                there_itself.fetch([FETCH_SPEC], callbacks=_TransferCallbacks(), prune=FetchPrune.PRUNE)
    else:
        try:
            _fetch_over_network(repo, access, depth)
        except pygit2.GitError as error:
            if not _NAME_CONFLICT.search(str(error)):
                raise network_error(error, repo.url) from error
            forget_remote(repo, ls_remote(repo, repo.url, access))
            with network_errors(repo.url):
                _fetch_over_network(repo, access, depth)
    for branch, tip in list_branches(repo, remote=True).items():
        note_seen(repo, branch, tip)


def _fetch_over_network(repo: Repository, access: RemoteAccess, depth: int) -> None:
    callbacks = _RemoteCallbacks(repo.url, access)
    _remote(repo, repo.url).fetch([FETCH_SPEC], callbacks=callbacks, prune=FetchPrune.PRUNE, depth=depth)


def check_pushable(repo: Repository, access: RemoteAccess) -> None:
    """Raise InvalidInput (`remote-unsupported`) for an empty remote that cannot be pushed to.

    Only a push shows that, for example of a repository with SHA-256, so an empty push is tried; a missing
    permission to push does not matter.
    """
    if access.local(repo.url) is not None or ls_remote(repo, repo.url, access):
        return
    try:
        _remote(repo, repo.url).push([_NO_BRANCH], callbacks=_RemoteCallbacks(repo.url, access))
    except pygit2.GitError as error:
        if kind := unsupported_error(str(error), repo.url):
            raise kind from error


def ls_remote(repo: Repository, url: str, access: RemoteAccess) -> dict[str, str]:
    """Return name → tip of the branches at any remote. Raises what `errors.network_error` returns."""
    check_url(url)
    path = access.local(url)
    if path is not None:
        with at_remote(url, path):
            return local_branches(path)
    with network_errors(url):
        remote = _remote(repo, url)
        heads = remote.list_heads(callbacks=_RemoteCallbacks(url, access))
    return {h.name.removeprefix(HEADS): str(h.oid) for h in heads if h.name and h.name.startswith(HEADS)}


def default_branch(repo: Repository, access: RemoteAccess) -> str | None:
    """Return the branch that the remote's HEAD names, if it exists."""
    check_url(repo.url)
    path = access.local(repo.url)
    if path is not None:
        with at_remote(repo.url, path):
            return local_default(path)
    with network_errors(repo.url):
        heads = _remote(repo, repo.url).list_heads(callbacks=_RemoteCallbacks(repo.url, access))
    known = {head.name: str(head.oid) for head in heads}
    named = next((head.symref_target for head in heads if head.name == "HEAD"), None)
    if named is None and "HEAD" in known:  # an old server does not say which branch HEAD is
        named = next((n for n, oid in known.items() if n != "HEAD" and oid == known["HEAD"]), None)
    return named.removeprefix(HEADS) if named in known and named is not None else None


def push(repo: Repository, branches: dict[str, str], access: RemoteAccess) -> None:
    """Push our branches to the remote's branches of the same names. `branches`: name → tip.

    The branches before a refused one are pushed and recorded; those after it may be based on it, and
    wait. Raises RemoteMoved if the remote has commits that ours lacks, Forbidden (`push-refused`), Conflict
    (`branch-name-taken`), and what `errors.network_error` returns.
    """
    check_url(repo.url)
    push_content(repo, access)
    path = access.local(repo.url)
    if path is not None:
        refused = push_local(repo, path, branches)
    else:
        refused = _push_once(repo, branches, access)
        lost_races = all(isinstance(refusal, RemoteMoved) for refusal in refused.values())
        if len(refused) == len(branches) > 1 and not lost_races:
            # A pre-receive hook refuses all branches for one of them, so they are tried one by one.
            for name, tip in branches.items():
                if refused := _push_once(repo, {name: tip}, access):
                    break
    for name, tip in branches.items():
        if name in refused:
            raise refused[name]
        note_pushed(repo, name, tip)
        set_upstream_base(repo, name, tip)
        note_seen(repo, name, tip)


def _push_once(repo: Repository, branches: dict[str, str], access: RemoteAccess) -> dict[str, Refusal]:
    callbacks = _RemoteCallbacks(repo.url, access)
    specs = [f"{HEADS}{name}:{HEADS}{name}" for name in branches]
    try:
        with network_errors(repo.url, writes_there=True):
            _remote(repo, repo.url).push(specs, callbacks=callbacks)
    except MaoError as error:
        if error.code not in NOT_TAKEN:
            raise
        error.detail += callbacks.message()
        return dict.fromkeys(branches, error)
    return {
        name: branch_refusal(repo.url, name, callbacks.refused[HEADS + name], callbacks.message())
        for name in branches
        if HEADS + name in callbacks.refused
    }
