"""Files and folders that are the node's alone: nobody else on the machine reads or changes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDER_MODE = 0o700
OTHERS_WRITE = 0o022
ROOT = 0


def replace_file(path: Path, content: bytes) -> None:
    """Replaces one file as a whole, mode 0600, on disk when this returns; raises OSError. Blocks.

    Its folder is made where there is none, with mode 0700.
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
    """What was renamed into the folder survives a power cut from here on; raises OSError. Blocks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def changeable_by_others(status: os.stat_result) -> str | None:
    """Why somebody else could have written it, in words; None when only this user and root could."""
    if status.st_uid not in (ROOT, os.geteuid()):
        return f"it belongs to the uid {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return f"others may write it (mode {status.st_mode & 0o7777:04o})"
    return None
