"""Memory stays flat with the size of a file, through publishing and laying out, with git and with Git LFS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SIZE = 150_000_000  # bytes
ALLOWED = 30  # MB


@pytest.mark.parametrize("kind", ["git", "lfs"])
def test_a_large_file_takes_no_memory(tmp_path: Path, kind: str) -> None:
    argv = [sys.executable, "-m", "bench.publish", str(tmp_path / "large"), str(SIZE), kind]
    repository = Path(__file__).parents[2]
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert max(said["peak_mb"], said["again_mb"]) - said["before_mb"] < ALLOWED, said
