"""A node whose data directory has characters that are special in a shell, a URL or a path list."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.git import ENV, git
from tests.support.main_job import Names
from tests.support.node import native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]


@pytest.mark.parametrize("name", ["my data", "50%20 it's #1, Größe?", 'a:b "c" \\d'])
def test_odd_data_dir_own_dataset_is_created_collected_and_cloned(
    tmp_path: Path, tool_image: str, name: str
) -> None:
    root = tmp_path / name
    root.mkdir()
    elsewhere = {
        "MAO_LOCAL_REMOTES": str(tmp_path / "elsewhere")
    }  # a colon-separated list, which cannot contain this path
    with native_node(root, env=elsewhere) as node:
        names = Names("tool", "data")
        node.maoctl("tool", "add", names.tool, "me", tool_image, "", "", "x")
        node.maoctl("dataset", "init", names.dataset)
        node.maoctl("pipeline", "init", names.tool, names.dataset)
        run = main_job.run_once(node, names)
        assert run["phase"] == "succeeded", run
        assert run["steps"][0]["pushed"] is True
        url = node.maoctl("dataset", "clone-url", names.dataset).stdout.removesuffix("\n")
        subprocess.run(["git", "clone", "-q", url, str(tmp_path / "clone")], env=ENV, check=True)
        assert git(tmp_path / "clone", "rev-parse", "HEAD") == run["steps"][0]["snapshot"]
        node.maoctl("doctor")
