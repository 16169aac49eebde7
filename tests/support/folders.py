"""`tmp_path` lies in memory where there is room: tests make and remove many small files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 4 * 1024**3  # bytes


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """pytest reads the variable when the first test asks for a folder."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
