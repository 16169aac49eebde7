"""A native node for benchmarks, used through its public API."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.node import NativeNode, native_node

NAME = "bench"
APPEND = "date +%s >> /usr/src/app/data/lines.csv"
_IMAGES = ("mao/base-busybox:local", "busybox:1.36-musl")  # base images of `scripts/machine.sh tool-images`


@contextlib.contextmanager
def bench_node(folder: Path, **env: str) -> Iterator[NativeNode]:
    """Start a node that logs little."""
    with native_node(folder, name=NAME, env={"MAO_LOG_LEVEL": "warning", **env}) as node:
        yield node


def tool_image() -> str:
    """Return a static busybox image that exists on this machine; raises RuntimeError without one."""
    for image in _IMAGES:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0:
            return image
    raise RuntimeError(f"missing image {' or '.join(_IMAGES)}; next: scripts/machine.sh tool-images")


def append_command(seconds: float = 0) -> list[str]:
    """Return the command of a tool that sleeps for some seconds and appends a line to its data."""
    return ["sh", "-c", f"sleep {seconds}; {APPEND}" if seconds else APPEND]


def call(node: NativeNode, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a POST request and return the response; raises RuntimeError with the node's error."""
    answer = node.http.post(path, json=body)
    if answer.is_error:
        raise RuntimeError(f"POST {path} → {answer.status_code} {answer.text}")
    record: dict[str, Any] = answer.json()
    return record


def enrol(node: NativeNode, name: str, command: Sequence[str]) -> Path:
    """Enrol the node in a one-step pipeline with a new dataset; return the dataset's bare repository."""
    master = node.data_dir.parent / f"{name}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(master)], check=True)
    call(node, "/registry/tools", {"name": name, "image": tool_image(), "command": list(command)})
    call(node, "/registry/datasets", {"name": name, "master": str(master)})
    call(node, "/pipeline/init", {"tool": name, "dataset": name})
    return master


def run_once(node: NativeNode, pipeline: str) -> dict[str, Any]:
    """Run a pipeline; return its run once the output is pushed, or raise RuntimeError."""
    run = node.wait_run(call(node, "/pipeline/run", {"name": pipeline})["id"])
    check_pushed(run)
    return run


def check_pushed(run: dict[str, Any]) -> None:
    if run["phase"] != "succeeded" or not all(step.get("pushed") for step in run["steps"]):
        raise RuntimeError(f"the run {run['id']} is not pushed: {run}")
