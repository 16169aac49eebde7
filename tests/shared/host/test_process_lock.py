"""A second process of a service on one data directory does not start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mao_shared.errors import Conflict
from mao_shared.host.data_dir import process_lock

HOLD = "import sys; from pathlib import Path; from mao_shared.host.data_dir import process_lock\n"
HOLD += "with process_lock(Path(sys.argv[1]), 'runner'): print('held', flush=True); sys.stdin.read()"


def test_process_lock_held_by_one_and_free_when_it_is_killed(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Conflict) as caught, process_lock(tmp_path, "runner"):
            raise AssertionError("both have it")
        assert caught.value.code == "already-running"
        assert str(tmp_path) in caught.value.detail
        with process_lock(tmp_path, "datamgmt"):
            pass
        other.kill()
    with process_lock(tmp_path, "runner"):
        pass
