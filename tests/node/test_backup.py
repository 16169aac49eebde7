"""`python -m mao_node backup` and `restore` on another user's folders leave no files of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.users import NOBODY, SOMEBODY, as_user, common_folder, needs_root, python_for

pytestmark = needs_root


def owned(place: Path, *, locked: bool) -> Path:
    """Create a data directory of another user, without a running node."""
    data = place / "node"
    data.mkdir(mode=0o700)
    if locked:
        (data / "node.lock").touch()
        os.chown(data / "node.lock", SOMEBODY, SOMEBODY)
    os.chown(data, SOMEBODY, SOMEBODY)
    return data


def called(data: Path, *words: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    python, env = python_for(uid) if uid else (sys.executable, {})
    argv = [python, "-m", "mao_node", *words]
    env = {**os.environ, "MAO_NODE": "one", "MAO_DATA_DIR": str(data), **env}
    return subprocess.run(as_user(uid, *argv), env=env, capture_output=True, text=True, cwd="/")


@pytest.mark.parametrize("words", [("backup", "-"), ("restore", "/no/such/file")])
@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("locked", [True, False])
def test_backup_and_restore_need_the_nodes_user(words: tuple[str, ...], uid: int, *, locked: bool) -> None:
    with common_folder() as place:
        data = owned(place, locked=locked)
        before = sorted(data.iterdir())
        done = called(data, *words, uid=uid)
        assert done.returncode != 0
        assert f"sudo -u '#{SOMEBODY}'" in done.stderr, done.stderr
        assert [path for path in data.iterdir() if path.stat().st_uid != SOMEBODY] == []
        assert sorted(data.iterdir()) == before


def test_restore_of_a_missing_file_says_so(tmp_path: Path) -> None:
    done = called(tmp_path / "node", "restore", str(tmp_path / "none"))
    assert (done.returncode, "There is no file" in done.stderr) == (3, True), done.stderr


def test_backup_where_no_node_has_run_is_refused(tmp_path: Path) -> None:
    done = called(tmp_path / "node", "backup", str(tmp_path / "backup.tar.gz"))
    assert (done.returncode, "No node has run in" in done.stderr) == (3, True), done.stderr
    assert list(tmp_path.iterdir()) == []
