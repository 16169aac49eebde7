"""Translates failures and refusals of a remote into errors with a next step."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import pygit2

from mao_git.errors import NEARLY_FULL, RAW_ERRORS, RemoteMoved, disk_full, find_errno, is_full, stable_text
from mao_git.repository import HEADS
from mao_shared.errors import Conflict, Forbidden, InvalidInput, MaoError, RemoteUnavailable
from mao_shared.git_urls import local_path

from . import host_keys
from .unsupported import explain_non_repository, unsupported_error

NOT_STORED = "remote-not-stored"
NOT_TAKEN = frozenset({"push-refused", NOT_STORED})
"""Codes of refusals of a whole push, after which a smaller push may succeed."""
MOVED = re.compile(
    r"non-?fast-?forward|not a simple fast-forward|not present locally|fetch first|stale info|needs force"
    r"|cannot lock ref|failed to lock|failed to update ref|reference already exists|is at \S+ but expected",
    re.IGNORECASE,
)
# A hook may write anything, so these words take precedence.
_HOOK = re.compile(r"hook|declined|quota|protected", re.IGNORECASE)
_NAME_TAKEN = re.compile(r"'refs/heads/(?P<other>[^']+)' exists; cannot create", re.IGNORECASE)
_ADVICE = (
    (
        re.compile(r"checked out"),
        "Use a bare repository (git clone --bare), or check out another branch there.",
    ),
    (
        re.compile(r"quota|exceed|too (?:large|big)|file size|size limit|maximum", re.IGNORECASE),
        "Have the limit raised or space freed on the server; waiting commits are then pushed unchanged.",
    ),
    (
        re.compile(r"read-?only|archived|locked for", re.IGNORECASE),
        "Make the repository writable again (unarchive it), or give the dataset another remote: "
        "maoctl dataset update NAME --master URL.",
    ),
)
_WRITE_REFUSED = re.compile(r"read-?only|archived|quota|size limit|too large|protected", re.IGNORECASE)
_ALLOW = "Allow this node to push its own branch and ground-truth there (branch protection, hooks)."
_ABSENT = re.compile(
    r"does not appear to be a git repository|could not find repository|unsupported URL protocol"
    r"|not found|status code:? 404|failed to resolve path|does not exist",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"authentication|status code:? 40[13]|permission denied|access denied|no callback set"
    r"|permission to \S+ denied|write access|not granted",
    re.IGNORECASE,
)
# What libssh2 says when the server has no host key of a kind that known_hosts lists.
_NO_COMMON_KEY = re.compile(r"unable to exchange encryption keys", re.IGNORECASE)
_KEY_UNREAD = re.compile(r"unable to (?:extract public key from|open|read) private key", re.IGNORECASE)
Refusal = MaoError | RemoteMoved


def branch_refusal(url: str, branch: str, reason: str, message: str = "") -> Refusal:
    """Translate a server's reason for refusing a branch: a lost race, a taken name, or a real refusal.

    `message`: the server's further output, as a sentence.
    """
    if other := _NAME_TAKEN.search(reason + message):
        return branch_name_taken(url, branch, [other["other"]])
    if MOVED.search(reason) and not _HOOK.search(reason):
        return RemoteMoved(f"{reason}{message}".rstrip("."))
    return push_refused(url, branch, reason, message)


def push_refused(url: str, branch: str, reason: str, message: str = "") -> Forbidden:
    """Return the error for a branch that the server does not accept."""
    words = f"{reason}.{message}"
    return Forbidden(
        f"The remote {url} refused the push to {branch}: {words}",
        code="push-refused",
        next=next((advice for kind, advice in _ADVICE if kind.search(words)), _ALLOW),
        remote=url,
    )


def not_stored(url: str, message: str) -> RemoteUnavailable:
    """Return the error for a server that accepted the connection but did not store the push."""
    return RemoteUnavailable(
        f"The remote {url} did not store what was pushed: {message}.",
        code=NOT_STORED,
        next="Check on the server: free space, quota, size limit (receive.maxInputSize), permissions of its "
        "folder. Unpushed commits are kept on this node, and the push is retried.",
        remote=url,
    )


def remote_full(url: str, message: str) -> RemoteUnavailable:
    """Return the error for a server whose disk is full."""
    return RemoteUnavailable(
        f"The remote {url} is out of disk space: {message}.",
        code="remote-full",
        next="Free space on its server. Unpushed commits are kept on this node, and the push is retried.",
        remote=url,
    )


def push_refusal(url: str, message: str) -> MaoError | None:
    """Return the refusal that a server's error message means; None if it is no refusal."""
    if "unpacking the sent packfile failed" in message:
        return not_stored(url, message)
    return push_refused(url, "any branch", message) if _WRITE_REFUSED.search(message) else None


def branch_checked_out(url: str, branch: str) -> Forbidden:
    """Return the error for a branch that is checked out in the remote's own folder."""
    return push_refused(url, branch, "it is checked out in that repository's folder")


def branch_name_taken(url: str, branch: str, others: Sequence[str]) -> Conflict:
    """Return the error for a branch that cannot exist beside others, such as `x` beside `x/y`."""
    shown, one = ", ".join(others[:5]), others[0]
    kept = one.replace("/", "-")
    moved = shlex.join(["git", "push", "origin", f"origin/{one}:{HEADS}kept-{kept}", f":{HEADS}{one}"])
    return Conflict(
        f"The branch {branch} cannot be created at {url}: it has {shown}, and git cannot keep both names.",
        code="branch-name-taken",
        next=f"Rename {one} there, in a clone of it: {moved} . Waiting commits are then pushed.",
        remote=url,
    )


@contextmanager
def network_errors(url: str, *, writes_there: bool = False) -> Iterator[None]:
    """Convert pygit2's errors of a network operation on `url` by `network_error`; other exceptions pass.

    `writes_there`: the remote writes in the block, as in a push, so that a full disk is the remote's.
    """
    try:
        yield
    except pygit2.GitError as error:
        found = network_error(error, url, writes_there=writes_there)
        if isinstance(found, RemoteMoved) and not writes_there:  # not a lost race: a lock of ours
            found = no_answer(url, str(found))
        raise found from error


@contextmanager
def at_remote(url: str, path: Path) -> Iterator[None]:
    """Within the block only a remote on this machine is used, at `path`: every failure is the remote's.

    Raises RemoteUnavailable and InvalidInput (`dataset-unreachable`).
    """
    try:
        yield
    except RAW_ERRORS as error:
        raise local_remote_error(error, url, path) from error


@contextmanager
def from_remote(url: str, path: Path, own: Path) -> Iterator[None]:
    """Within the block a remote at `path` of this machine is read, and our clone at `own` is written to.

    The path in the error, or the kind of failure, shows which of the two failed: only ours is written
    to. A failure of ours is raised as it is, or as `disk-full`.
    """
    try:
        yield
    except RAW_ERRORS as error:
        if _is_ours(error, path, own):
            if is_full(error):
                raise disk_full(f"no space was left while fetching from {url}") from error
            raise
        raise local_remote_error(error, url, path) from error


def _is_ours(error: Exception, path: Path, own: Path) -> bool:
    named = f"{error} {getattr(error, 'filename', '')}"
    places = [(len(str(place)), place is own) for place in (path, own) if f"{place}/" in f"{named}/"]
    if places:
        return max(places)[1]
    if find_errno(error) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    return not _has_words(error) and shutil.disk_usage(own).free < NEARLY_FULL


def _has_words(error: BaseException) -> bool:
    """True if an error has a message; libgit2's has none when a write ends early."""
    return str(error) not in ("", "no error")


def local_remote_error(error: Exception, url: str, path: Path) -> MaoError:
    """Return the error for a remote on this machine that failed."""
    number, message = find_errno(error), stable_text(str(error).strip().rstrip("."))
    if kind := unsupported_error(message, url, path):
        return kind
    place = quote(str(path))
    if is_full(error) or (not _has_words(error) and _is_nearly_full(path)):
        code, why = "remote-full", "its file system is full, or its quota is used up"
        next_step = f"Free space there, or raise the quota (df -h {place})."
    elif number == errno.EROFS:
        code, why = "remote-read-only", f"its file system is mounted read-only ({message})"
        next_step = f"Mount it for writing (findmnt -T {place})."
    elif number in (errno.EACCES, errno.EPERM):
        code, why = "remote-no-permission", f"user {os.geteuid()} has no permission ({message})"
        next_step = f"Give the node's user access to all files in {place} (chown, chmod)."
    elif (number in (errno.ENOENT, errno.ENOTDIR) and not path.exists()) or (
        number is None and _ABSENT.search(str(error)) and not isinstance(error, KeyError)
    ):
        return unreachable(url, message)
    else:
        code, why = "remote-unavailable", message
        next_step = f"Check it (ls {place}; git -C {place} fsck)."
    return RemoteUnavailable(
        f"The remote {url} cannot be used: {why}.",
        code=code,
        next=f"{next_step} Unpushed commits are kept on this node, and the push is retried.",
        remote=url,
    )


def _is_nearly_full(path: Path) -> bool:
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < NEARLY_FULL or (status.f_files > 0 and status.f_favail == 0)


def network_error(error: pygit2.GitError, url: str, *, writes_there: bool = False) -> MaoError | RemoteMoved:
    """Return the error for a failed network operation on `url`. `writes_there`: see `network_errors`."""
    message = str(error).strip().rstrip(".")
    if is_full(error):
        return (
            remote_full(url, message)
            if writes_there
            else disk_full(f"no space was left while communicating with {url}")
        )
    if isinstance(error, pygit2.CertificateError) or _NO_COMMON_KEY.search(message):
        host = host_keys.parse_ssh_host(url)
        if host is None:
            return Forbidden(
                f"The certificate of {url} is not trusted: {message}.",
                code="remote-certificate-refused",
                next="Install the authority's certificate on the node or use another URL.",
                remote=url,
            )
        home = pygit2.settings.homedir or "/"
        listed = host_keys.known_keys(host_keys.read_known_hosts(home), host)
        shown = host_keys.scan_host_key(host)
        return host_keys.untrusted(host, listed, shown, host_keys.known_hosts_fault(home))
    if kind := unsupported_error(message, url):
        return kind
    if _KEY_UNREAD.search(message):  # though it looked usable, see `access.key_fault`
        return no_key(
            url,
            f"the SSH library does not read it ({message})",
            "Make another: ssh-keygen -t ed25519 -N '' .",
        )
    if isinstance(error, pygit2.AuthError) or _REFUSED.search(message):
        return auth_failed(url, message)
    if writes_there and (refusal := push_refusal(url, message)):
        return refusal
    if MOVED.search(message):
        return RemoteMoved(message)
    if _ABSENT.search(message):
        return unreachable(url, message)
    return no_answer(url, message)


def no_answer(url: str, why: str) -> RemoteUnavailable:
    """Return the error for a remote that does not answer, or not as git does; it may be temporary."""
    return RemoteUnavailable(
        f"The remote {url} does not answer: {why}.",
        next="Check the network and the server; the node continues with its clone and retries.",
        remote=url,
    )


def unreachable(url: str, why: str) -> InvalidInput:
    """Return the error for a missing repository. For a path, libgit2's message misleads and is not used."""
    path = local_path(url)
    what, advice = (why, "") if path is None else explain_non_repository(path)
    because = f": {what}" if what else ""
    return InvalidInput(
        f"There is no git repository at {url}{because}.",
        code="dataset-unreachable",
        next=(advice or f"Check it: git ls-remote {quote(url)} .")
        + " 'maoctl dataset init NAME' makes a repository on this node.",
        remote=url,
    )


def auth_failed(url: str, why: str) -> Forbidden:
    """Return the error for a remote that refused our credentials."""
    return Forbidden(
        f"The remote {url} refused this node: {why}.",
        code="remote-auth-failed",
        next="Put a private key that the remote accepts into the key directory (id_ed25519 or id_rsa, no "
        "passphrase), and give it write access at the remote.",
        remote=url,
    )


def no_key(url: str, why: str, advice: str | None) -> Forbidden:
    """Return the error for a node without a usable key."""
    return Forbidden(
        f"The remote {url} asks for an SSH key, and this node has none that it can use: {why}.",
        code="ssh-key-unusable" if advice else "remote-auth-failed",
        next=advice
        or "Put a private key without passphrase into the key directory (MAO_SSH_DIR) as id_ed25519, and "
        "have its public part added at the remote, with write access.",
        remote=url,
    )
