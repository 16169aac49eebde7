"""What a tool left behind: its folder as found, judged before it is read, and what of it changed.

The folder is treated as hostile: it is walked by folder descriptors, no link is followed, and a file is
opened relative to the folder in which it was seen.
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

# What a file or folder is to blame for: gone, another, of a kind that is not opened, in a loop, too long.
_OF_THE_PATH = frozenset(
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

_MAX_SHOWN = 200  # characters of a path in a message

_INODE_MASK = (1 << 63) - 1  # some file systems use all 64 bits; as a signed number it has one less

Stamp = tuple[int, int, int, int]


"""Inode, size, time of change of content, time of change of anything: differs once a file was touched."""


class Rights(NamedTuple):
    """Permission bits, owner and group of a file or folder."""

    mode: int
    user: int
    group: int


class FoundFile(NamedTuple):
    """A file or link in a tool's output. `shared`: it has a second name (hard link)."""

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
    """A folder as found: files and links, and folders, by path; the folder itself is "".

    `same`: paths of `known` files that are surely unchanged; they are not in `files`.
    """

    limits: OutputLimits
    known: Mapping[str, Stamp] = field(default_factory=dict)
    sealed_at: int = 0
    files: dict[str, FoundFile] = field(default_factory=dict)
    folders: dict[str, Rights] = field(default_factory=dict)
    same: list[str] = field(default_factory=list)

    def is_same(self, path: str, status: os.stat_result) -> bool:
        """Return whether a file is surely unchanged.

        A file stamped at the very moment of the seal may have changed since: file systems' clocks tick in
        milliseconds,
        so a change right after leaves the stamp as it is.
        """
        before = self.known.get(path)
        return before is not None and before[3] < self.sealed_at and before == make_stamp(status)


def scan(folder: Path, limits: OutputLimits) -> dict[str, FoundFile]:
    """Return all files and links below `folder`, by path.

    Raises InvalidInput (`output-refused` and others) for the first thing that cannot be published.
    """
    found = scan_folder(folder, limits).files
    check_links({path: file.link for path, file in found.items() if file.link is not None})
    return found


def check_links(links: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
    """Raise InvalidInput (`output-refused`) for the first link of a tree that leads out of it.

    `links`: path → target.

    `known`: the links of the tree before; what led out there already is not this tool's doing.
    """
    wrong = escaping_links(links)
    before = known or {}
    inherited = (
        {path for path in escaping_links(before) if links.get(path) == before[path]} if wrong else set()
    )
    for path, why in wrong.items():
        if path not in inherited:
            raise refused(path, why)


def scan_folder(
    folder: Path, limits: OutputLimits, known: Mapping[str, Stamp] | None = None, sealed_at: int = 0
) -> FolderScan:
    """Scan a folder as `scan` does, with its folders.

    Of the files `known` at `sealed_at` (ns), only those are listed that may have changed.

    Where links lead is not checked yet: that takes all links of the resulting tree, see `check_links`.
    """
    found = FolderScan(limits, known or {}, sealed_at)
    try:
        root = os.open(folder, _FOLDER)
    except FileNotFoundError as error:
        raise MaoError(
            f"The workspace {folder.parent} is gone, and with it the tool's output.",
            code="workspace-missing",
            next="See that nothing else removes files from the data directory, and run it again.",
        ) from error
    except PermissionError as error:
        raise unreadable(".") from error
    try:
        found.folders[""] = _rights(os.fstat(root))
        _walk(root, "", 0, found)
    finally:
        os.close(root)
    return found


def _walk(folder: int, inside: str, depth: int, seen: FolderScan) -> None:
    if depth > MAX_DEPTH:
        raise refused(inside, f"is more than {MAX_DEPTH} folders deep")
    for name in sorted(os.listdir(folder)):
        path = inside + name
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            _raise_read_error(path, error)
        if seen.is_same(path, status):
            seen.same.append(path)
            continue
        _check_name(name, path, seen.limits)
        if stat.S_ISDIR(status.st_mode):
            seen.folders[path] = _rights(status)
            with _opened(name, folder, path, _FOLDER) as inner:
                _walk(inner, f"{path}/", depth + 1, seen)
        else:
            seen.files[path] = _judge(name, folder, path, status, seen.limits)
            if len(seen.files) + len(seen.same) > seen.limits.files:
                raise refused(
                    path, f"is one file too many; the limit is {seen.limits.files}", "MAO_MAX_FILES"
                )


def _rights(status: os.stat_result) -> Rights:
    return Rights(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def _judge(name: str, folder: int, path: str, status: os.stat_result, limits: OutputLimits) -> FoundFile:
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
    if status.st_size > limits.file_size and not limits.goes_to_lfs(status.st_size):
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


def refused(path: str, why: str, setting: str | None = None) -> InvalidInput:
    """Return the error for output that cannot be published."""
    raise_it = f" or raise {setting} in the data manager's settings" if setting else ""
    name = printable(path if len(path) <= _MAX_SHOWN else f"{path[:_MAX_SHOWN]}…")
    return InvalidInput(
        f"The tool's output was refused: {name!r} {why}.",
        code="output-refused",
        next=f"Let the tool write plain files under plain names only{raise_it}; "
        "the output is kept in the run's workspace.",
        path=printable(path),
    )


def unreadable(path: str) -> InvalidInput:
    """Return the error for output that this process may not read."""
    return InvalidInput(
        f"The tool's output cannot be read: no access to {path!r}.",
        code="output-unreadable",
        next="Let the tool leave its files readable for their owner (mode 644, folders 755), and see that it "
        "runs with the node's user id: maoctl tool check IMAGE.",
        path=path,
    )


def _raise_read_error(path: str, error: OSError) -> NoReturn:
    """Raise InvalidInput if the file or folder at `path` is the cause of `error`; a disk's error as it is."""
    if isinstance(error, PermissionError):
        raise unreadable(path) from error
    if error.errno not in _OF_THE_PATH:
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
    """Open a file that `scan` found, folder by folder, without following links.

    Raises InvalidInput when it is not what was found.
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
    """The state of a workspace at the hand-over to the tool.

    `sealed_at` (ns, the file system's clock) is later than the stamps of all files, or equal to those written
    last.
    """

    files: Mapping[str, Stamp]
    sealed_at: int


@dataclass(frozen=True, slots=True)
class OutputChanges:
    """The files that a tool changed.

    `touched`: whether the tool did anything to any file; `written` may still have the old content.
    """

    written: list[FoundFile]
    removed: list[str]
    touched: bool


def find_changes(before: Baseline, now: Mapping[str, FoundFile], same: Sequence[str] = ()) -> OutputChanges:
    """Compare the files found with the baseline.

    Files with the stamp of the hand-over are unchanged and need not be read.

    `same`: files left out of `now` since they are surely unchanged. A file stamped in the very moment of the
    hand-over is read all the same, see `FolderScan.is_same`.
    """
    touched = [found for found in now.values() if before.files.get(found.path) != found.stamp]
    unsure = [
        found
        for found in now.values()
        if before.files.get(found.path) == found.stamp and found.stamp[3] >= before.sealed_at
    ]
    removed: list[str] = []
    if len(same) + sum(path in before.files for path in now) != len(before.files):
        here = {*now, *same}
        removed = [path for path in before.files if path not in here]
    return OutputChanges(touched + unsure, removed, bool(touched or removed))
