"""promtool, which judges our metrics, rules and scrape configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .evidence import REPO

MONITORING = REPO / "monitoring"


def promtool(*args: str, text: str | None = None, cwd: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    """Run promtool with `text` as its input; skip the test where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: run scripts/machine.sh promtool")
    return subprocess.run([program, *args], input=text, cwd=cwd, capture_output=True, text=True, timeout=60)
