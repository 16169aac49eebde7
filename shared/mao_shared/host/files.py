"""Private files and folders, which other users cannot read or write."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

FOLDER_MODE = 0o700
OTHERS_WRITE = 0o022
ROOT = 0


def replace_file(path: Path, content: bytes) -> None:
    """Replace one file atomically and durably, with mode 0600; raises OSError. Blocks.

    A missing folder is created, with mode 0700.
    """
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # mkstemp's mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable; raises OSError. Blocks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def writable_by_others(status: os.stat_result) -> str | None:
    """Return why other users could have written the file; None if only this user and root could."""
    if status.st_uid not in (ROOT, os.geteuid()):
        return f"it belongs to the uid {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return f"other users may write it (mode {status.st_mode & 0o7777:04o})"
    return None


def set_private_umask() -> None:
    """Make new files of this process and its children private by default."""
    os.umask(0o077)


def make_private(folder: Path, *, names: Iterable[str], shallow: Iterable[str] = ()) -> None:
    """Create the folder, or remove other users' access to an existing one; raises OSError. Blocks.

    Also removes access to the entries `names` and `shallow`, and recursively to the content of `names` that
    are accessible to others. A folder with the sticky bit, such as /tmp, is not changed.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for name in shallow:
        remove_access(folder / name)
    for name in names:
        if is_accessible_to_others(folder / name):
            for at, folders, files in os.walk(folder / name):
                for entry in (*folders, *files):
                    remove_access(Path(at, entry))
            remove_access(folder / name)  # last, so that an interrupted walk is repeated
    if not folder.stat().st_mode & stat.S_ISVTX:
        remove_access(folder)


def is_accessible_to_others(path: Path) -> bool:
    """Return True if group or others have access to a file or folder of this user; False for links."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    kind = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    return kind and bool(status.st_mode & ~FOLDER_MODE & 0o777) and status.st_uid == os.geteuid()


def remove_access(path: Path) -> None:
    """Remove the permissions of group and others if `is_accessible_to_others`."""
    try:
        if is_accessible_to_others(path):
            path.chmod(path.lstat().st_mode & FOLDER_MODE)
    except FileNotFoundError:
        return  # deleted meanwhile
    except OSError as error:  # a file system without permissions must not prevent the start
        from mao_shared.logs import get_logger  # avoided by the node's supervisor

        get_logger(__name__).warning("private.not_possible", path=str(path), error=error.strerror)
