"""Small file systems that tests fill up or remount read-only."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount an empty file system of `size` bytes at `folder` for the duration of the block."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "mao-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Create a file that takes all but `leave` bytes, and return its path."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        for last in (False, False, False, True):
            status = os.statvfs(folder)
            try:
                os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)
                break
            except OSError as error:  # somebody has written since
                if last or error.errno != errno.ENOSPC:
                    raise
                os.ftruncate(file.fileno(), 0)
    return filler


def set_read_only(folder: Path, read_only: bool) -> None:
    """Remount a file system read-only or read-write; a kernel does the former on an I/O error."""
    how = "remount,ro" if read_only else "remount,rw"
    subprocess.run(["mount", "-o", how, str(folder)], check=True)
