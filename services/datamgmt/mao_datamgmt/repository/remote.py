"""Talking to a clone's remote: fetch, push, credentials. Never a forced update of a branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pygit2
from pygit2.enums import CredentialType, FetchPrune

from mao_shared.errors import InvalidInput
from mao_shared.git_urls import ALLOWED, master_fault

from .branches import HEADS, list_branches, note_pushed
from .clone import FETCH_SPEC, REMOTE, Clone
from .errors import RemoteMoved, at_remote, auth_failed, from_remote, refusal_of, translated
from .known import begin_known, note_known
from .lfs import push_content
from .local_remote import local_branches, local_default, push_local
from .remote_access import RemoteAccess


@dataclass(eq=False)
class _Talk(pygit2.RemoteCallbacks):
    """One conversation: offers each key once, trusts only what the library found in order."""

    url: str
    access: RemoteAccess
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._keys: Iterator[Path] = iter(self.access.private_keys())

    def credentials(
        self, _url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> pygit2.Username | pygit2.Keypair:
        user = username_from_url or "git"
        if allowed_types & CredentialType.SSH_KEY:
            key = next(self._keys, None)
            if key is not None:
                return pygit2.Keypair(user, None, str(key), "")
            tried = (
                ", ".join(path.name for path in self.access.private_keys())
                or "no key is in the key directory"
            )
            raise auth_failed(self.url, f"it did not take this node's keys ({tried})")
        if allowed_types & CredentialType.USERNAME:
            return pygit2.Username(user)
        raise auth_failed(self.url, "it asks for a password, and MAO has none")

    def certificate_check(self, certificate: None, valid: bool, host: bytes) -> bool:  # noqa: ARG002
        return valid  # for SSH: libssh2 found this very key in known_hosts

    def push_update_reference(self, refname: str, message: str | None) -> None:
        if message is not None:
            self.refused[refname] = message


def check_url(url: str) -> None:
    """Raises InvalidInput for a URL that git must not be let loose on; the registry checks it as well."""
    if fault := master_fault(url):
        raise InvalidInput(
            f"The remote {url!r} is refused: {fault}.", code="dataset-url-refused", next=f"Give {ALLOWED}."
        )


def fetch(clone: Clone, access: RemoteAccess, *, depth: int = 0) -> None:
    """Brings all branches of the remote up to date; raises what `errors.to_error` names.

    `depth`: for a new clone, how many commits of each branch it begins with (0: all). A remote on this
    machine always gives all.
    """
    check_url(clone.url)
    for branch in list_branches(clone):
        begin_known(clone, branch)
    path = access.local(clone.url)
    if path is not None:
        _fetch_local(clone, path)
        return
    with translated(clone.url):
        clone.git.remotes[REMOTE].fetch(
            [FETCH_SPEC], callbacks=_Talk(clone.url, access), prune=FetchPrune.PRUNE, depth=depth
        )


def _fetch_local(clone: Clone, path: Path) -> None:
    """From where the remote really is, whatever its URL leads to by now."""
    with at_remote(clone.url, path):
        there = local_branches(path)
    if there != list_branches(clone, remote=True):
        with from_remote(clone.url, path, clone.path):
            clone.git.remotes.create_anonymous(str(path)).fetch([FETCH_SPEC], prune=FetchPrune.PRUNE)


def look_at(clone: Clone, url: str, access: RemoteAccess) -> dict[str, str]:
    """Names and tips of the branches at another remote; raises what `errors.to_error` names."""
    check_url(url)
    path = access.local(url)
    if path is not None:
        with at_remote(url, path):
            return local_branches(path)
    with translated(url):
        remote = clone.git.remotes.create_anonymous(url)
        heads = remote.list_heads(callbacks=_Talk(url, access))
    return {h.name.removeprefix(HEADS): str(h.oid) for h in heads if h.name and h.name.startswith(HEADS)}


def default_branch(clone: Clone, access: RemoteAccess) -> str | None:
    """The branch that the remote's HEAD names, if that branch exists."""
    check_url(clone.url)
    path = access.local(clone.url)
    if path is not None:
        with at_remote(clone.url, path):
            return local_default(path)
    with translated(clone.url):
        heads = clone.git.remotes[REMOTE].list_heads(callbacks=_Talk(clone.url, access))
    known = {head.name: str(head.oid) for head in heads}
    named = next((head.symref_target for head in heads if head.name == "HEAD"), None)
    if named is None and "HEAD" in known:  # an old server does not say which branch HEAD is
        named = next((n for n, oid in known.items() if n != "HEAD" and oid == known["HEAD"]), None)
    return named.removeprefix(HEADS) if named in known and named is not None else None


def push(clone: Clone, branches: dict[str, str], access: RemoteAccess) -> None:
    """Moves branches of the remote to commits of ours, which must be there under the branches' names.

    Raises RemoteMoved when the remote has commits that these do not contain, Forbidden (`push-refused`)
    when it does not want them, and what `errors.to_error` names.
    """
    check_url(clone.url)
    push_content(clone, access)
    path = access.local(clone.url)
    if path is not None:
        push_local(clone, path, branches)
    else:
        _push_over_network(clone, branches, access)
    for name, tip in branches.items():
        note_pushed(clone, name, tip)
        note_known(clone, name, tip)


def _push_over_network(clone: Clone, branches: dict[str, str], access: RemoteAccess) -> None:
    talk = _Talk(clone.url, access)
    specs = [f"{HEADS}{name}:{HEADS}{name}" for name in branches]
    with translated(clone.url, writes_there=True):
        clone.git.remotes[REMOTE].push(specs, callbacks=talk)
    refusals = [
        refusal_of(clone.url, name.removeprefix(HEADS), reason) for name, reason in talk.refused.items()
    ]
    for refusal in sorted(refusals, key=lambda each: isinstance(each, RemoteMoved)):
        raise refusal  # one that waiting does not mend comes first
