"""What a remote that answers does not take of a push: each kind in words, with what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mao_git.branches import HEADS
from mao_shared.errors import Conflict, Forbidden, MaoError, RemoteUnavailable


class RemoteMoved(Exception):
    """A push lost the race: the remote's branch has commits that we have not built upon."""


Refusal = MaoError | RemoteMoved
NOT_STORED = "remote-not-stored"
NOT_TAKEN = frozenset({"push-refused", NOT_STORED})
"""Codes of what a remote says of a whole push that another one, with less in it, may not meet."""

MOVED = re.compile(
    r"non-?fast-?forward|not a simple fast-forward|not present locally|fetch first|stale info|needs force"
    r"|cannot lock ref|failed to lock|failed to update ref|reference already exists|is at \S+ but expected",
    re.IGNORECASE,
)
# What a hook says is anybody's words, so that these are looked for first.
_HOOK = re.compile(r"hook|declined|quota|protected", re.IGNORECASE)
_BESIDE = re.compile(r"'refs/heads/(?P<other>[^']+)' exists; cannot create", re.IGNORECASE)
_ADVICE = (
    (
        re.compile(r"checked out"),
        "Use a bare repository (git clone --bare), or check out another branch there.",
    ),
    (
        re.compile(r"quota|exceed|too (?:large|big)|file size|size limit|maximum", re.IGNORECASE),
        "Have the limit raised or room made on the server; what waits is then pushed as it is.",
    ),
    (
        re.compile(r"read-?only|archived|locked for", re.IGNORECASE),
        "Make the repository writable again (unarchive it), or give the dataset another remote: "
        "maoctl dataset update NAME --master URL.",
    ),
)
_WRITE_REFUSED = re.compile(r"read-?only|archived|quota|size limit|too large|protected", re.IGNORECASE)
_ALLOW = "Allow this node to push its own branch and ground-truth there (branch protection, hooks)."


def refusal_of(url: str, branch: str, reason: str, said: str = "") -> Refusal:
    """What a server's word on one branch of a push means: a lost race, a name that is taken, or that it does
    not want it. `said`: what it wrote beside that, as a sentence.
    """
    if other := _BESIDE.search(reason + said):
        return name_taken(url, branch, [other["other"]])
    if MOVED.search(reason) and not _HOOK.search(reason):
        return RemoteMoved(f"{reason}{said}".rstrip("."))
    return push_refused(url, branch, reason, said)


def push_refused(url: str, branch: str, reason: str, said: str = "") -> Forbidden:
    """The server does not want a branch, for whatever reason it gives."""
    words = f"{reason}.{said}"
    return Forbidden(
        f"The remote {url} refused the push to {branch}: {words}",
        code="push-refused",
        next=next((advice for kind, advice in _ADVICE if kind.search(words)), _ALLOW),
        remote=url,
    )


def not_stored(url: str, message: str) -> RemoteUnavailable:
    """The server took the connection and could not, or would not, store what was sent."""
    return RemoteUnavailable(
        f"The remote {url} did not store what was pushed: {message}.",
        code=NOT_STORED,
        next="See on the server what keeps it: room, quota, a size limit (receive.maxInputSize), rights in "
        "its folder. What is not pushed is kept on this node and tried again.",
        remote=url,
    )


def no_room_there(url: str, message: str) -> RemoteUnavailable:
    """The server's disk is full."""
    return RemoteUnavailable(
        f"The remote {url} has no room: {message}.",
        code="remote-full",
        next="Make room on its server. What is not pushed is kept on this node and tried again.",
        remote=url,
    )


def refusal_of_all(url: str, message: str) -> MaoError | None:
    """What a server said in place of an answer to a push, when that is that it takes none."""
    if "unpacking the sent packfile failed" in message:
        return not_stored(url, message)
    return push_refused(url, "any branch", message) if _WRITE_REFUSED.search(message) else None


def branch_checked_out(url: str, branch: str) -> Forbidden:
    """Somebody works on the branch in the remote's own folder."""
    return push_refused(url, branch, "it is checked out in the folder of that repository")


def name_taken(url: str, branch: str, others: Sequence[str]) -> Conflict:
    """A branch cannot be made beside others: for git, `x/y` lies in a folder `x`, which is then no branch."""
    shown, one = ", ".join(others[:5]), others[0]
    kept = one.replace("/", "-")
    moved = shlex.join(["git", "push", "origin", f"origin/{one}:{HEADS}kept-{kept}", f":{HEADS}{one}"])
    return Conflict(
        f"The branch {branch} cannot be made at {url}: it has {shown}, and git cannot keep both names.",
        code="branch-name-taken",
        next=f"Rename {one} there, in a clone of it: {moved} . What waits is then pushed by itself.",
        remote=url,
    )
