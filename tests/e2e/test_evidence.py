"""A published step verified by third-party programs, and reproduced by datalad and by the node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker import Engine
from tests.support.evidence import datalad, rocrate_issues, runcrate_report
from tests.support.git import bare_repository, git
from tests.support.node import NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

MEASURES = "cat /proc/uptime >> /usr/src/app/data/values"
SUMS = """\
cd /usr/src/app/data
wc -c ../input/values > size
echo "{$UNIT} $API_TOKEN" > "a b"
"""


@pytest.fixture(scope="module")
def run(node: NativeNode, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run two steps, the second deterministic; `masters` maps the steps to their remotes."""
    folder = tmp_path_factory.mktemp("evidence")
    masters = {name: bare_repository(folder / f"{name}.git") for name in ("ev-raw", "ev-sums")}
    for name, script in {"ev-measure": MEASURES, "ev-sum": SUMS}.items():
        _post(node, "/registry/tools", {"name": name, "image": engine.build(script)})
    for name, master in masters.items():
        _post(node, "/registry/datasets", {"name": name, "master": str(master)})
    steps = [
        {"tool": "ev-measure", "dataset": "ev-raw", "command": ["sh", "-c", MEASURES]},
        {
            "tool": "ev-sum",
            "dataset": "ev-sums",
            "input_dataset": "ev-raw",
            "env": {"UNIT": "bytes {x}", "API_TOKEN": "geheim"},
        },
    ]
    _post(node, "/pipeline/init", {"name": "evidence", "steps": steps})
    started = _post(node, "/pipeline/run", {"name": "evidence"})
    ended = node.wait_run(started["id"])
    assert ended["phase"] == "succeeded", ended
    return {**ended, "masters": masters}


def _post(node: NativeNode, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = node.http.post(path, json=body, timeout=60)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


def _checkout(master: Path, folder: Path, commit: str) -> Path:
    git(folder.parent, "clone", "-q", str(master), str(folder))
    git(folder, "checkout", "-q", "-B", "scratch", commit)
    return folder


def test_evidence_datalad_reports_every_step(run: dict[str, Any], tmp_path: Path) -> None:
    for step in run["steps"]:
        checkout = _checkout(
            run["masters"][step["spec"]["output"]["name"]], tmp_path / step["spec"]["name"], step["snapshot"]
        )
        lines = datalad(checkout, "-f", "json", "rerun", "--report").splitlines()
        reported = [json.loads(line) for line in lines]
        info = reported[0]["run_info"]
        assert info["cmd"].startswith("docker run --rm ")
        assert step["spec"]["image"]["pinned"] in info["cmd"]
        assert "sha256:" in info["cmd"]
        assert "geheim" not in json.dumps(reported)
        assert {"mao", "libgit2", "engine"} <= info["mao"]["versions"].keys()
        assert info["mao"]["log"]["sha256"]
        assert info["mao"]["user"]


def test_evidence_datalad_rerun_in_scratch_clone_gives_same_tree(run: dict[str, Any], tmp_path: Path) -> None:
    step = run["steps"][1]
    checkout = _checkout(run["masters"]["ev-sums"], tmp_path / "sums", step["base_commit"])
    _checkout(run["masters"]["ev-raw"], tmp_path / "input", step["input_commit"])
    for name in ("size", "a b"):
        assert not (checkout / name).exists()

    datalad(checkout, "rerun", step["snapshot"], variables={"API_TOKEN": "geheim", "UNIT": "bytes {x}"})

    assert git(checkout, "rev-parse", "HEAD^{tree}") == git(
        checkout, "rev-parse", f"{step['snapshot']}^{{tree}}"
    )
    assert git(checkout, "rev-parse", "HEAD~1") == step["base_commit"]


def test_evidence_run_is_exported_and_verified(node: NativeNode, run: dict[str, Any], tmp_path: Path) -> None:
    crate = tmp_path / "crate.zip"
    node.maoctl("run", "export", run["id"], "-o", str(crate))
    assert rocrate_issues(crate) == ""
    assert "ev-sum" in runcrate_report(crate)
    good = node.maoctl("run", "verify", run["id"], "--crate", str(crate))
    assert "is as recorded" in good.stderr

    log = node.data_dir / "logs" / run["id"] / "1.1.log"
    content = log.read_bytes()
    log.write_bytes(content + b"x")
    bad = node.maoctl("run", "verify", run["id"], check=False)
    log.write_bytes(content)
    assert bad.returncode == 1
    assert "ev-sum log 1.1.log" in bad.stderr


def test_evidence_node_reproduces_deterministic_step_only(node: NativeNode, run: dict[str, Any]) -> None:
    tips = {name: git(master, "for-each-ref") for name, master in run["masters"].items()}
    good = node.maoctl("run", "reproduce", run["id"], "--step", "ev-sum", "--wait", "--timeout", "60s")
    assert good.stdout.splitlines() == ["identical  2 files"]

    bad = node.maoctl("run", "reproduce", run["id"], "--step", "ev-measure", "--wait", check=False)
    assert bad.returncode == 1
    assert bad.stdout.splitlines() == ["different  values", "identical  0 files"]
    assert {name: git(master, "for-each-ref") for name, master in run["masters"].items()} == tips
    _remove_kept(node, bad.stderr)


def _remove_kept(node: NativeNode, said: str) -> None:
    """Remove the differing output that the node kept, found by the path in its message."""
    kept = next(word for word in said.split() if word.startswith("workspaces/"))
    assert (node.data_dir / kept / "0.1" / "data" / "values").exists()
    shutil.rmtree(node.data_dir / kept)
