"""The exceptions of this package, and how a full disk is told from other failures.

    Exception
    └── GitError                    for callers to handle; never shown to a user as it is
        ├── RepositoryError         a repository of this node cannot be read or written
        │   ├── ObjectMissing       an object or reference is not there
        │   ├── ObjectBroken        an object is broken, truncated, or of the wrong kind
        │   └── StorageError        the file system fails, is full, or gives no permission
        ├── InvalidPath             git cannot hold a name
        ├── MergeConflict           two sides changed the same files
        ├── RemoteMoved             a push lost the race
        ├── ContentMissing          an LFS pointer whose content is not here
        └── LfsConflict             a file is in the way of declaring LFS pointers

An error that a user can act on is a MaoError of `mao_shared.errors` (NotFound, RemoteUnavailable, …),
with a code and a next step; CloneBroken is the only one that is defined here.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import pygit2

from mao_shared.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")

NEARLY_FULL = 16 << 20  # free bytes below which a failure without a reason counts as a full disk
RAW_ERRORS = (OSError, pygit2.GitError, KeyError, ValueError)
"""Raised by libgit2 and the system; `git_errors` converts them, so that no caller sees them."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_WORDS = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NUMBERS = {
    os.strerror(number): number
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ENODEV,
        errno.ENOTDIR,
        errno.ENOENT,
    )
}
_RANDOM = re.compile(
    r"_git2_[0-9a-f]+|tmp_obj_[0-9a-f]+|mao-[0-9a-f]{16}|\b[0-9a-f]{2}/[0-9a-f]{38}\b|\b[0-9a-f]{40}\b"
)


class GitError(Exception):
    """Base of this package's exceptions that are not a MaoError."""


class RepositoryError(GitError):
    """A repository of this node cannot be read or written. `errno`: the system's error number, if known."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    @property
    def strerror(self) -> str | None:
        """The system's message for `errno`, without a path."""
        return None if self.errno is None else os.strerror(self.errno)


class ObjectMissing(RepositoryError):
    """An object or reference is not in the repository."""


class ObjectBroken(RepositoryError):
    """An object is broken, truncated, or of the wrong kind."""


class StorageError(RepositoryError):
    """The file system of a repository fails, is full, or gives no permission."""


class InvalidPath(GitError):
    """A name that git cannot store."""


class MergeConflict(GitError):
    """Two sides changed the same files. `commit`: the commit that could not be replayed, if any."""

    def __init__(self, paths: list[str], commit: str | None = None) -> None:
        super().__init__(", ".join(paths[:5]))
        self.paths = paths
        self.commit = commit


class RemoteMoved(GitError):
    """A push lost the race: the remote's branch has commits that ours does not contain."""


class ContentMissing(GitError):
    """The content of an LFS pointer is not here; see `fetch_lfs`. The message is the content's SHA-256."""


class LfsConflict(GitError):
    """The file `path` prevents declaring LFS pointers; the message says why."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path


class CloneBroken(Unavailable):
    """A clone that cannot be used. Callers retry: the clone is repaired meanwhile."""

    default_code = "clone-broken"

    @classmethod
    def of(cls, dataset: str, why: str) -> CloneBroken:
        """Return the error for the clone of a dataset on this node."""
        return cls(
            f"The clone of dataset {dataset!r} on this node is broken: {why}.",
            next=f"It is set aside and cloned again automatically; see: maoctl dataset get {dataset}",
        )


@contextmanager
def git_errors() -> Iterator[None]:
    """Convert the RAW_ERRORS that are raised in the block into RepositoryErrors; others pass."""
    try:
        yield
    except KeyError as error:
        raise ObjectMissing(f"there is no object or reference {error}") from error
    except ValueError as error:
        raise ObjectBroken(str(error) or type(error).__name__) from error
    except OSError as error:
        words = str(error) or type(error).__name__
        if error.strerror is not None:
            words = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
        raise StorageError(words, find_errno(error)) from error
    except pygit2.GitError as error:
        raise RepositoryError(str(error) or "git gives no reason", find_errno(error)) from error


def raises_git_errors(cls: type[C]) -> type[C]:
    """Decorate a class so that `git_errors` applies to its methods, also while generators are read."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _translated(method))
    return cls


def _translated(method: Callable[P, T]) -> Callable[P, T]:
    if inspect.isgeneratorfunction(method):

        @wraps(method)
        def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with git_errors():
                yield from method(*args, **kwargs)

        return cast("Callable[P, T]", generate)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with git_errors():
            return method(*args, **kwargs)

    return call


def find_errno(error: BaseException) -> int | None:
    """Return the system's error number, also if libgit2 has put it into words only."""
    if isinstance(error, (OSError, RepositoryError)) and error.errno is not None:
        return error.errno
    return next((number for words, number in _NUMBERS.items() if words in str(error)), None)


def is_full(error: BaseException) -> bool:
    """True if an error means that a file system is full; libgit2 gives the reason in words only."""
    if isinstance(error, (OSError, RepositoryError)) and error.errno is not None:
        return error.errno in _FULL
    return _FULL_WORDS.search(str(error)) is not None


def stable_text(text: str) -> str:
    """Remove ids and temporary names from a message, so that the messages of two attempts can be compared."""
    return _RANDOM.sub("…", text)


def disk_full(why: str) -> Unavailable:
    """Return the error for a full disk. The caller retries."""
    return Unavailable(
        f"The node's disk is full: {why}.",
        code="disk-full",
        next="Free space (or inodes) on the data directory's disk, or lower MAO_MIN_FREE. "
        "A tool's output is kept and published then, without running the tool again.",
    )


def disk_trouble(why: str) -> Unavailable:
    """Return the error for a failing disk of this node. The caller retries."""
    return Unavailable(
        f"The node's disk fails: {why}.",
        code="disk-trouble",
        next="Check that the data directory is mounted for writing and belongs to the node's user (see "
        "dmesg), and its datasets: maoctl doctor, git fsck.",
    )


def branch_busy(branch: str) -> Unavailable:
    """Return the error for a branch of ours that another process has moved."""
    return Unavailable(
        f"Another process moved the branch {branch} during an operation on it.",
        code="branch-busy",
        next="It is retried automatically. Only one data manager may run on a node.",
    )
