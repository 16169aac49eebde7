"""Put `tmp_path` in memory where there is room, since tests create and delete many small files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ENOUGH = 4 * 1024**3  # bytes


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Set PYTEST_DEBUG_TEMPROOT, which pytest reads when the first test requests `tmp_path`."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
