"""Scans a tool's output folder, refuses what cannot be published, and finds the changed files.

The folder is treated as hostile: it is walked by directory descriptors, no link is followed, and a file is
opened relative to the folder in which it was found.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from mao_datamgmt.context import OutputLimits
from mao_git.paths import MAX_DEPTH, escaping_links, is_git_name, leads_out, printable
from mao_shared.errors import InvalidInput, MaoError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}

# Errors caused by a path: missing, replaced, of another type, in a loop, or too long.
_PATH_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.ENXIO,
        errno.EOVERFLOW,
    }
)

MAX_SHOWN_CHARACTERS = 200  # of a path in a message

_INODE_MASK = (1 << 63) - 1  # some file systems use all 64 bits; a signed number has one less

Stamp = tuple[int, int, int, int]


"""Inode, size, mtime and ctime: differs after any change of a file."""


class Rights(NamedTuple):
    """Permission bits, owner and group of a file or folder."""

    mode: int
    user: int
    group: int


class FoundFile(NamedTuple):
    """A file or link in a tool's output. `shared`: it has several hard links."""

    path: str
    stamp: Stamp
    executable: bool = False
    link: str | None = None
    rights: Rights = Rights(0o644, 0, 0)
    shared: bool = False

    @property
    def size(self) -> int:
        return self.stamp[1]


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The content of a folder: files and links, and folders, by path; the folder itself is "".

    `same` lists the `known` files that are certainly unchanged; they are not in `files`.
    """

    limits: OutputLimits
    known: Mapping[str, Stamp] = field(default_factory=dict)
    sealed_at: int = 0
    files: dict[str, FoundFile] = field(default_factory=dict)
    folders: dict[str, Rights] = field(default_factory=dict)
    same: list[str] = field(default_factory=list)

    def is_same(self, path: str, status: os.stat_result) -> bool:
        """True if a file is certainly unchanged.

        A file with the time of the seal itself may have changed since: file systems have clocks with a
        resolution of milliseconds, so a change directly after may leave the stamp unchanged.
        """
        baseline = self.known.get(path)
        return baseline is not None and baseline[3] < self.sealed_at and baseline == make_stamp(status)


def scan(folder: Path, limits: OutputLimits) -> dict[str, FoundFile]:
    """Return all files and links below `folder` by path.

    Raises InvalidInput (`output-refused` and others) for the first entry that cannot be published.
    """
    found = scan_folder(folder, limits).files
    check_links({path: file.link for path, file in found.items() if file.link is not None})
    return found


def check_links(links: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
    """Raise InvalidInput (`output-refused`) for the first link that leads out of its tree.

    `links` and `known` map paths to targets. Links in `known`, those of the tree before, are not this tool's
    fault and pass.
    """
    escaping = escaping_links(links)
    baseline = known or {}
    inherited = (
        {path for path in escaping_links(baseline) if links.get(path) == baseline[path]}
        if escaping
        else set()
    )
    for path, reason in escaping.items():
        if path not in inherited:
            raise refused(path, reason)


def scan_folder(
    folder: Path, limits: OutputLimits, known: Mapping[str, Stamp] | None = None, sealed_at: int = 0
) -> FolderScan:
    """Return the files, links and folders below a folder; raises the errors of `scan`.

    Files `known` at `sealed_at` (ns) are listed only if they may have changed.

    The targets of links are not checked, as that requires all links of the resulting tree (see
    `check_links`).
    """
    found = FolderScan(limits, known or {}, sealed_at)
    try:
        root = os.open(folder, _FOLDER)
    except FileNotFoundError as error:
        raise MaoError(
            f"The workspace {folder.parent} was removed, and with it the tool's output.",
            code="workspace-missing",
            next="Make sure that nothing else removes files from the data directory, and run it again.",
        ) from error
    except PermissionError as error:
        raise unreadable(".") from error
    try:
        found.folders[""] = _rights(os.fstat(root))
        _walk(root, "", 0, found)
    finally:
        os.close(root)
    return found


def _walk(folder: int, inside: str, depth: int, scanned: FolderScan) -> None:
    if depth > MAX_DEPTH:
        raise refused(inside, f"is more than {MAX_DEPTH} folders deep")
    for name in sorted(os.listdir(folder)):
        path = inside + name
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            _raise_read_error(path, error)
        if scanned.is_same(path, status):
            scanned.same.append(path)
            continue
        _check_name(name, path, scanned.limits)
        if stat.S_ISDIR(status.st_mode):
            scanned.folders[path] = _rights(status)
            with _opened(name, folder, path, _FOLDER) as inner:
                _walk(inner, f"{path}/", depth + 1, scanned)
        else:
            scanned.files[path] = _inspect_file(name, folder, path, status, scanned.limits)
            if len(scanned.files) + len(scanned.same) > scanned.limits.files:
                raise refused(
                    path, f"is one file too many; the limit is {scanned.limits.files}", "MAO_MAX_FILES"
                )


def _rights(status: os.stat_result) -> Rights:
    return Rights(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _inspect_file(
    name: str, folder: int, path: str, status: os.stat_result, limits: OutputLimits
) -> FoundFile:
    stamp = make_stamp(status)
    if stat.S_ISLNK(status.st_mode):
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:
            _raise_read_error(path, error)
        if not target.isprintable():
            raise refused(path, "is a link with an unreadable target")
        return FoundFile(path, stamp, link=target)
    if not stat.S_ISREG(status.st_mode):
        raise refused(path, f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no regular file')}")
    if status.st_size > limits.file_size and not limits.is_for_lfs(status.st_size):
        raise InvalidInput(
            f"The tool's output was refused: {path!r} has {status.st_size} bytes, the limit is "
            f"{limits.file_size}.",
            code="output-refused",
            next="Let the dataset keep large files in Git LFS: maoctl dataset update DATASET --lfs-above 10m"
            ", then maoctl pipeline approve PIPELINE; or raise MAO_MAX_FILE_SIZE in the data manager's "
            "settings. The output is kept in the run's workspace.",
            path=path,
            size=status.st_size,
        )
    executable = bool(status.st_mode & stat.S_IXUSR)
    return FoundFile(path, stamp, executable, None, _rights(status), status.st_nlink > 1)


def make_stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino & _INODE_MASK, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _check_name(name: str, path: str, limits: OutputLimits) -> None:
    if is_git_name(name):
        raise refused(path, "is a git directory or looks like one; a dataset holds no repositories")
    if leads_out(name):
        raise refused(
            path, "has a name that leads out of the folder where a backslash separates names (Windows)"
        )
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise refused(path, "has a name that is not UTF-8") from None
    if length > limits.path:
        raise refused(path, f"has a path of {length} bytes; {limits.path} fit where this node keeps its data")


def refused(path: str, reason: str, setting: str | None = None) -> InvalidInput:
    """Return the error for output that cannot be published."""
    advice = f" or raise {setting} in the data manager's settings" if setting else ""
    name = printable(path if len(path) <= MAX_SHOWN_CHARACTERS else f"{path[:MAX_SHOWN_CHARACTERS]}…")
    return InvalidInput(
        f"The tool's output was refused: {name!r} {reason}.",
        code="output-refused",
        next=f"Let the tool write plain files under plain names only{advice}; "
        "the output is kept in the run's workspace.",
        path=printable(path),
    )


def unreadable(path: str) -> InvalidInput:
    """Return the error for output that this process is not permitted to read."""
    return InvalidInput(
        f"The tool's output cannot be read: no access to {path!r}.",
        code="output-unreadable",
        next="Let the tool make its files readable for their owner (mode 644, folders 755); check that it "
        "runs with the node's user id: maoctl tool check IMAGE",
        path=path,
    )


def _raise_read_error(path: str, error: OSError) -> NoReturn:
    """Raise InvalidInput if the file or folder at `path` caused the error, otherwise the error itself."""
    if isinstance(error, PermissionError):
        raise unreadable(path) from error
    if error.errno not in _PATH_ERRNOS:
        raise error
    raise refused(path, f"changed while it was read ({error.strerror})") from error


@contextmanager
def _opened(name: str, folder: int, path: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        _raise_read_error(path, error)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(root: Path, found: FoundFile) -> io.BufferedIOBase:
    """Open a scanned file, folder by folder, without following links.

    Raises InvalidInput if it has changed since.
    """
    *folders, name = found.path.split("/")
    current = os.open(root, _FOLDER)
    try:
        for folder in folders:
            with _opened(folder, current, found.path, _FOLDER) as inner:
                os.close(current)
                current = os.dup(inner)
        with _opened(name, current, found.path, _FILE) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or make_stamp(status) != found.stamp:
                raise refused(found.path, "changed while it was read")
            return os.fdopen(os.dup(descriptor), "rb")
    finally:
        os.close(current)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The state of a workspace when it was handed over to the tool.

    `sealed_at` (ns, by the file system's clock) is later than the stamps of all files, or equal to the last
    last.
    """

    files: Mapping[str, Stamp]
    sealed_at: int


@dataclass(frozen=True, slots=True)
class OutputChanges:
    """The files that a tool changed.

    `touched` is True if the tool changed any file; those in `written` may still have the old content.
    """

    written: list[FoundFile]
    removed: list[str]
    touched: bool


def find_changes(baseline: Baseline, now: Mapping[str, FoundFile], same: Sequence[str] = ()) -> OutputChanges:
    """Compare the scanned files with the baseline.

    Files with the stamp in the baseline are unchanged and need not be read.

    `same` are files that are not in `now` because they are certainly unchanged. A file with the time of the
    hand-over itself is read anyway (see `FolderScan.is_same`).
    """
    touched = [found for found in now.values() if baseline.files.get(found.path) != found.stamp]
    uncertain = [
        found
        for found in now.values()
        if baseline.files.get(found.path) == found.stamp and found.stamp[3] >= baseline.sealed_at
    ]
    removed: list[str] = []
    if len(same) + sum(path in baseline.files for path in now) != len(baseline.files):
        present = {*now, *same}
        removed = [path for path in baseline.files if path not in present]
    return OutputChanges(touched + uncertain, removed, bool(touched or removed))
