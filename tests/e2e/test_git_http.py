"""`git clone` of a dataset through the gateway, for users who cannot open its remote's folder."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import main_job
from tests.support.docker import Engine
from tests.support.git import git
from tests.support.main_job import Names
from tests.support.node import NativeNode
from tests.support.users import NOBODY, as_user, common_folder, needs_root

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
NAMES = Names("http-tool", "http-data")
ALONE = {
    "HOME": "/nonexistent",
    "PATH": "/usr/bin:/bin",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
}


@pytest.fixture(scope="module")
def url(node: NativeNode, tool_image: str) -> str:
    """Return the clone URL of a dataset with a commit."""
    master = node.http.post("/bare-repo/init", json={"name": "http-remote"}).json()["master"]
    main_job.register(node, NAMES, tool_image, master)
    assert main_job.run_once(node, NAMES)["phase"] == "succeeded"
    return f"{node.url}/git/{NAMES.dataset}.git"


def run_git(*words: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*prefix, "git", *words], env=ALONE, capture_output=True, text=True)


@pytest.mark.parametrize("options", [[], ["--depth", "1"], ["--bare"], ["--filter=blob:none"]])
@pytest.mark.parametrize("version", ["0", "2"])
def test_git_http_dataset_is_cloned(url: str, options: list[str], version: str, tmp_path: Path) -> None:
    done = run_git("-c", f"protocol.version={version}", "clone", *options, url, str(tmp_path / "clone"))
    assert done.returncode == 0, done.stderr
    assert "runs.csv" in git(tmp_path / "clone", "ls-tree", "--name-only", "HEAD")


def test_git_http_dataset_that_no_pipeline_writes_yet_is_cloned(node: NativeNode, tmp_path: Path) -> None:
    node.maoctl("dataset", "init", "http-empty")
    done = run_git("clone", f"{node.url}/git/http-empty.git", str(tmp_path / "clone"))
    assert done.returncode == 0, done.stderr
    assert "empty repository" in done.stderr


def test_git_http_clone_is_brought_up_to_date_and_nothing_is_pushed(
    node: NativeNode, url: str, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    assert run_git("clone", "-q", url, str(clone)).returncode == 0
    for number in range(60):  # the request is long enough for git to compress it
        git(clone, "commit", "-q", "--allow-empty", "-m", f"of my own {number}")
        git(clone, "branch", f"mine-{number}")
    snapshot = main_job.run_once(node, NAMES)["steps"][0]["snapshot"]

    assert run_git("-C", str(clone), "fetch", "-q").returncode == 0
    pushed = run_git("-C", str(clone), "push", "origin", "HEAD:mine")

    assert git(clone, "rev-parse", f"origin/{node.name}") == snapshot
    assert pushed.returncode != 0
    assert "403" in pushed.stderr


LFS = [
    word
    for setting in ("smudge=git-lfs smudge -- %f", "process=git-lfs filter-process", "required=true")
    for word in ("-c", f"filter.lfs.{setting}")
]


@pytest.mark.parametrize("sizes", [(3_000,), (2_000_000, 5_000)])
def test_git_http_large_files_in_git_lfs_come_along(
    node: NativeNode, engine: Engine, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    name = f"http-lfs-{len(sizes)}"
    makes = "; ".join(
        f"head -c {size} /dev/zero | tr '\\0' x > /usr/src/app/data/{size}.bin" for size in sizes
    )
    node.maoctl("tool", "add", name, "A", engine.build(f"{makes}; echo small > /usr/src/app/data/small"))
    node.maoctl("dataset", "init", name, "--lfs-above", "1k")
    node.maoctl("pipeline", "init", name, name)
    node.maoctl("pipeline", "run", name, "--wait")

    done = run_git(*LFS, "clone", f"{node.url}/git/{name}.git", str(tmp_path / "clone"))

    assert done.returncode == 0, done.stderr
    for size in sizes:
        assert "oid sha256:" in git(tmp_path / "clone", "show", f"HEAD:{size}.bin")
        assert (tmp_path / "clone" / f"{size}.bin").read_bytes() == b"x" * size


@needs_root
def test_git_http_other_user_clones_with_token_as_password(node: NativeNode, url: str) -> None:
    token = (node.data_dir / "gateway.token").read_text().strip()
    with_token = url.replace("http://", f"http://x:{token}@")
    with common_folder(NOBODY) as folder:
        refused = run_git("clone", url, str(folder / "a"), prefix=as_user(NOBODY))
        assert refused.returncode != 0
        assert "could not read Username" in refused.stderr  # otherwise git would prompt
        done = run_git("clone", with_token, str(folder / "b"), prefix=as_user(NOBODY))
        assert done.returncode == 0, done.stderr
