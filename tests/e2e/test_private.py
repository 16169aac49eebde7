"""A node started with umask 000 on an open data directory leaves nothing readable by other users."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mao_shared.host.data_dir import TOOLS_WORK_IN
from tests.support import main_job
from tests.support.main_job import Names
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
NO_UMASK = ("sh", "-c", 'umask 000; exec "$@"', "sh")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NativeNode]:
    tmp_path.chmod(0o755)
    old_log = tmp_path / "node-1" / "logs" / "old" / "0.1.log"
    old_log.parent.mkdir(parents=True)
    old_log.write_text("a secret\n")
    for path in (old_log, *list(old_log.parents)[:3]):
        path.chmod(0o777)
    with native_node(tmp_path, wrap=NO_UMASK) as node:
        yield node


def open_paths(root: Path) -> list[str]:
    """Return the paths that other users have rights on, except below the runs' own folders."""
    found = []
    for at, folders, files in os.walk(root):
        below = Path(at).relative_to(root).parts
        if below and below[0] in TOOLS_WORK_IN:
            folders.clear()  # the folder itself is checked at its parent
            continue
        paths = [Path(at, name) for name in (*folders, *files)]
        found += [str(path) for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077]
    return found


def test_private_nothing_of_node_is_open_whatever_its_umask(node: NativeNode, tool_image: str) -> None:
    names = Names("t", "d")
    made = node.http.post("/bare-repo/init", json={"name": "d"})
    main_job.register(node, names, tool_image, made.json()["master"])
    for _ in range(2):
        assert main_job.run_once(node, names)["phase"] == "succeeded"
    node.maoctl("tool", "update", "t", "--command", "sh -c 'echo x > /usr/src/app/data/kept; exit 1'")
    node.maoctl("pipeline", "approve", "t", "--yes")
    failed = main_job.run_once(node, names)
    assert failed["error"]["code"] == "tool-failed"
    kept = node.data_dir / "workspaces" / failed["id"] / "0.1" / "data" / "kept"
    assert kept.exists(), "there is a workspace to be looked into"
    assert open_paths(node.data_dir) == []
    assert node.data_dir.stat().st_mode & 0o077 == 0
    for name in TOOLS_WORK_IN:
        assert (node.data_dir / name).stat().st_mode & 0o077 == 0, name
    assert {path.name for path in node.data_dir.iterdir()} >= {"logs", "datasets", "etcd", "agreements"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it as somebody else")
def test_private_another_user_reads_nothing_of_it(node: NativeNode) -> None:
    for path in (node.data_dir, node.data_dir / "logs" / "old" / "0.1.log", node.data_dir / "installation"):
        tried = subprocess.run([*NOBODY, "cat", str(path)], capture_output=True, text=True)
        assert "Permission denied" in tried.stderr, tried
