"""Pipelines of small scripts on a node, for pages to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mao_shared.host.data_dir import DataDir
from tests.support.git import bare_repository
from tests.support.node import NativeNode

GATE = "until [ -e gate ]; do sleep 0.05; done; rm gate"
"""Shell command that waits for `open_gate`."""


def make_pipeline(
    node: NativeNode, root: Path, name: str, image: str, scripts: dict[str, str], **options: Any
) -> None:
    """Register a pipeline with a step for each script, all writing to one dataset, and enrol the node.

    `options`: further fields of each step.
    """
    remote = bare_repository(root / f"{name}.git")
    steps = [
        {
            "tool": name,
            "name": step,
            "dataset": name,
            "command": ["sh", "-c", f"cd /usr/src/app/data; {script}"],
        }
        | options
        for step, script in scripts.items()
    ]
    for path, body in [
        ("/registry/tools", {"name": name, "image": image, "env": {"HUB_TOKEN": "t0ps3cret", "SINCE": "1d"}}),
        ("/registry/datasets", {"name": name, "master": str(remote)}),
        ("/registry/pipelines", {"name": name, "steps": steps}),
    ]:
        answer = node.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
    answer = node.http.put(f"/enrolments/{name}", json={})
    assert answer.status_code in (200, 201), answer.text


def start(node: NativeNode, name: str) -> str:
    """Start a run and return its id."""
    answer = node.http.post("/pipeline/run", json={"name": name})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def run_once(node: NativeNode, name: str) -> dict[str, Any]:
    """Run a pipeline and return the run once it has ended."""
    return node.wait_run(start(node, name))


def open_gate(node: NativeNode, run_id: str, step: int = 0, attempt: int = 1) -> None:
    """Let a step go on that waits at `GATE`."""
    (DataDir(node.data_dir).workspace(run_id, step, attempt).data / "gate").touch()
