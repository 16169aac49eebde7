"""The main job of the original project's README, for native and compose nodes alike."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from .node import REPO


class Node(Protocol):
    """The node interface that the main job uses."""

    name: str
    http: httpx.Client

    @property
    def url(self) -> str: ...

    def maoctl(self, *args: str) -> subprocess.CompletedProcess[str]: ...

    def wait_run(self, run_id: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Names:
    tool: str
    dataset: str


def curl(node: Node, line: str, prefix: Sequence[str] = ()) -> Any:
    """Run a curl command of the original README with this node's port and return the parsed answer.

    `prefix` is put before the command, for example to run it as another user.
    """
    words = shlex.split(line.replace("http://0.0.0.0:8080", node.url.replace("127.0.0.1", "0.0.0.0")))
    argv = [*prefix, words[0], "-sS", "--fail-with-body", *words[1:]]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def register(node: Node, names: Names, image: str, master: str) -> None:
    """Register the tool by `maoctl tool add`, and the dataset and pipeline by the README's calls."""
    node.maoctl(
        "tool",
        "add",
        names.tool,
        "A. Scientist",
        image,
        "https://example.org/data",
        "https://example.org/code",
        "x",
    )
    curl(
        node,
        "curl -X POST http://0.0.0.0:8080/registry/datasets  -H 'content-type: application/json' "
        f'-d \'{{"name": "{names.dataset}", "body": {{"master": "{master}", "nodes": []}}}}\'',
    )
    curl(
        node,
        "curl -X POST http://0.0.0.0:8080/pipeline/init  -H 'content-type: application/json' "
        f'-d \'{{"tool": "{names.tool}", "dataset":"{names.dataset}"}}\'',
    )


def run_once(node: Node, names: Names) -> dict[str, Any]:
    """Start a run by `/pipeline/run` without cron, and return it once it has ended."""
    run = curl(
        node,
        "curl -X POST http://0.0.0.0:8080/pipeline/run  -H 'content-type: application/json' "
        f'-d \'{{"name":"{names.tool}"}}\'',
    )
    return node.wait_run(run["id"])


def schedule(node: Node, names: Names, cron: str) -> dict[str, Any]:
    """Schedule the pipeline by `/pipeline/run` with a cron string, and return the job."""
    job = curl(
        node,
        "curl -X POST http://0.0.0.0:8080/pipeline/run  -H 'content-type: application/json' "
        f'-d \'{{"name":"{names.tool}", "cron":"{cron}"}}\'',
    )
    assert isinstance(job, dict)
    return job


def ended_runs_of(node: Node, schedule_id: str, count: int, seconds: float = 150) -> list[dict[str, Any]]:
    """Wait on the event stream until `count` runs of a schedule have ended, and return them."""
    ended: dict[str, dict[str, Any]] = {}
    for run in node.http.get("/runs", params={"limit": 1000}).json()["items"]:
        _note(ended, run, schedule_id)
    with node.http.stream("GET", "/events", timeout=seconds) as answer:
        for line in answer.iter_lines():
            if len(ended) >= count:
                break
            if line.startswith("data:"):
                _note(ended, json.loads(line[5:]), schedule_id)
    return [ended[key] for key in sorted(ended)]


def _note(ended: dict[str, dict[str, Any]], run: dict[str, Any], schedule_id: str) -> None:
    if run.get("schedule") == schedule_id and run["phase"] not in ("queued", "running"):
        ended[run["id"]] = run


def schedule_every_two_seconds(node: Node, names: Names) -> dict[str, Any]:
    """Schedule the pipeline every two seconds and return the job."""
    answer = node.http.post(
        "/pipeline/run", json={"name": names.tool, "cron": "*/2 * * * * *", "seconds": True}
    )
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert isinstance(job, dict)
    return job


def run_readme_lines(node: Node, image: str, remote: str, prefix: Sequence[str] = ()) -> None:
    """Run the README's curl lines, replacing only the port and the dataset's repository.

    `prefix` is passed to `curl`.
    """
    node.maoctl("tool", "add", "name-of-tool", "A. Scientist", image, "x", "y", "artefact")
    lines = [line for line in (REPO / "README.md").read_text().splitlines() if line.startswith("curl ")]
    assert [line.split()[3].partition(":8080")[2] for line in lines] == [
        "/registry/datasets",
        "/pipeline/init",
        "/pipeline/run",
        "/pipeline/run",
    ]
    _, _, run, _ = [curl(node, line.replace("git-link", remote), prefix) for line in lines]
    assert node.wait_run(run["id"])["phase"] == "succeeded"
    [job] = node.http.get("/jobs").json()["items"]
    assert job["cron"] == "0 4 * * *"
    node.maoctl("job", "remove", job["id"], "--yes")
