"""Publish 10 changed files of 100 000, compared with git, and one large file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mao_git
from mao_datamgmt.context import Context, make_context
from mao_datamgmt.settings import DataSettings
from mao_datamgmt.steps.prepare import prepare
from mao_datamgmt.steps.publish import commit_output, push_output
from mao_datamgmt.steps.worktrees import retain
from mao_shared.host.data_dir import Workspace
from mao_shared.models import DatasetRef, Exit, ResolvedImage, ResolvedStep, Run, StepRun
from mao_shared.states import RunPhase, StepPhase

from .report import Measure

GOAL, LIMIT = 1.3, 1.6
MEMORY_GOAL = 150.0  # MB
FOLDERS, FILES, CHANGED = 100, 1000, 10
LARGE, PIECE = 2_000_000_000, 1_000_000  # bytes
NODE = "bench"
_GIT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


@dataclass
class Times:
    """Times of each round in seconds."""

    prepare: list[float]
    publish: list[float]
    git: list[float]


def measure(folder: Path, *, quick: bool = False) -> list[Measure]:
    times = _rounds(folder, 3 if quick else 9)
    size = LARGE // 10 if quick else LARGE
    return [_published(times), _prepared(times), _large(folder, size), _large(folder, size, "lfs")]


def _rounds(folder: Path, rounds: int) -> Times:
    """Measure the same changes in a dataset and in a git checkout, alternately."""
    context, master = make_node(folder)
    by_hand = _fill(folder / "by-hand", folder / "by-hand.git")
    _git(by_hand, "push", "-q", str(master), f"{NODE}:refs/heads/{NODE}")
    times = Times([], [], [])
    for number in range(-2, rounds):  # two to warm up
        run, workspace, prepare_seconds = _prepare(context, master, number)
        for root in (workspace.data, by_hand):
            _change(root, number)
        publish_seconds = _timed(lambda run=run, workspace=workspace: _publish(context, run, workspace))
        git_seconds = _timed(lambda: _publish_by_hand(by_hand))
        if number >= 0:
            times.prepare.append(prepare_seconds)
            times.publish.append(publish_seconds)
            times.git.append(git_seconds)
    return times


def make_node(folder: Path, **settings: Any) -> tuple[Context, Path]:
    """Create a data manager's context in `folder` and a remote; return both."""
    settings = {"node": NODE, "data_dir": folder / "node", "local_remotes": str(folder), **settings}
    context = make_context(DataSettings(**settings))
    context.data.root.mkdir(parents=True)
    mao_git.configure(context.data.root / "git-home", None, connect=10, silence=30)
    master = folder / "master.git"
    _git(folder, "init", "-q", "--bare", "-b", "main", str(master))
    return context, master


def _fill(checkout: Path, remote: Path) -> Path:
    _git(checkout.parent, "init", "-q", "--bare", str(remote))
    _git(checkout.parent, "init", "-q", "-b", NODE, str(checkout))
    for outer in range(FOLDERS):
        inner = checkout / f"{outer:03}"
        inner.mkdir()
        for number in range(FILES):
            (inner / f"{number:04}.json").write_text(f'{{"folder": {outer}, "number": {number}}}\n')
    for key, value in (("user.name", "bench"), ("user.email", "bench@example.org"), ("gc.auto", "0")):
        _git(checkout, "config", key, value)
    _git(checkout, "remote", "add", "origin", str(remote))
    _git(checkout, "add", "-A")
    _git(checkout, "commit", "-qm", "begin")
    _git(checkout, "push", "-q", "origin", NODE, f"{NODE}:ground-truth")
    return checkout


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(folder), *args], check=True, env=_GIT)


def _change(root: Path, number: int) -> None:
    for place in range(CHANGED):
        path = root / f"{place * 7 % FOLDERS:03}" / f"{(number + 2) * 13 % FILES:04}.json"
        path.write_text(f'{{"place": {place}, "round": {number}}}\n')


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _prepare(
    context: Context, master: Path, number: int, above: int | None = None
) -> tuple[Run, Workspace, float]:
    run_id = f"run-{number}"
    workspace = context.data.workspace(run_id, 0, 1)
    spec = ResolvedStep(
        name="step",
        tool="tool",
        image=ResolvedImage(name="tool:1", pinned="sha256:" + "0" * 64, platform="linux/amd64"),
        output=DatasetRef(name="data", master=str(master), branch=NODE, lfs_above=above),
    )
    began = time.perf_counter()
    prepared = prepare(context, spec, workspace)
    seconds = time.perf_counter() - began
    step = StepRun(spec=spec, phase=StepPhase.PUBLISHING, base_commit=prepared.base_commit, exit=Exit(code=0))
    now = datetime.now(UTC)
    run = Run(
        id=run_id,
        pipeline="bench",
        node=NODE,
        trigger="manual",
        phase=RunPhase.RUNNING,
        created_at=now,
        steps=[step],
    )
    return run, workspace, seconds


def _publish(context: Context, run: Run, workspace: Workspace) -> None:
    """Do the data manager's work between the tool's exit and `succeeded`, without writes to etcd."""
    step = run.steps[0]
    made = commit_output(context, run, step, workspace, {})
    if made is None:
        raise RuntimeError("nothing was published")
    published = push_output(context, run, step, made.commit, promote=True)
    if published.failure is not None:
        raise published.failure
    retain(context.data, step.spec.output.name, workspace)


def _publish_by_hand(checkout: Path) -> None:
    script = f"git add -A && git commit -qm again && git push -q origin {NODE} {NODE}:ground-truth"
    subprocess.run(["sh", "-c", script], check=True, cwd=checkout, env=_GIT)


def _published(times: Times) -> Measure:
    return Measure(
        name=f"publish, {CHANGED} changed of {FOLDERS * FILES} files",
        ours=statistics.median(times.publish) * 1000,
        unit="ms",
        than="git add -A, commit, push",
        theirs=statistics.median(times.git) * 1000,
        paired_ratio=statistics.median(a / b for a, b in zip(times.publish, times.git, strict=True)),
        judged="ratio",
        goal=GOAL,
        limit=LIMIT,
        rounds=tuple(round(seconds * 1000, 1) for seconds in times.publish),
        note="medians, alternating; from the tool's exit until node branch and ground truth are pushed "
        "(to a path on this machine), without writes to etcd",
    )


def _prepared(times: Times) -> Measure:
    return Measure(
        name="prepare, reusing the previous step's folder",
        ours=statistics.median(times.prepare) * 1000,
        unit="ms",
        rounds=tuple(round(seconds * 1000, 1) for seconds in times.prepare),
        note="checks every file; the first run writes all of them",
    )


def _large(folder: Path, size: int, kind: str = "git") -> Measure:
    """Publish in a new process, since the peak memory of a process cannot be reset."""
    argv = [sys.executable, "-m", "bench.publish", str(folder / f"large-{kind}"), str(size), kind]
    result = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return Measure(
        name=f"publish one file of {size / 1e9:g} GB with {kind}, peak memory",
        ours=result["peak_mb"],
        unit="MB",
        judged="ours",
        goal=MEMORY_GOAL,
        limit=MEMORY_GOAL,
        note=f"the whole process; {result['before_mb']:.0f} MB at its start; {result['seconds']:.0f} s, "
        f"and {result['again_mb']:.0f} MB after another checkout of the file",
    )


def _publish_large(folder: Path, size: int, kind: str) -> dict[str, float]:
    folder.mkdir()
    context, master = make_node(folder, max_file_size=size)
    before = _peak()
    above = PIECE if kind == "lfs" else None
    run, workspace, _ = _prepare(context, master, 0, above)
    write_noise(workspace.data / "large.bin", size)
    seconds = _timed(lambda: _publish(context, run, workspace))
    peak = _peak()
    context.data.worktree("data").joinpath("published.json").unlink()  # to force a checkout from the clone
    _prepare(context, master, 1, above)
    return {"before_mb": before, "peak_mb": peak, "seconds": seconds, "again_mb": _peak()}


def write_noise(path: Path, size: int) -> None:
    """Write incompressible data."""
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            file.write(os.urandom(PIECE))


def _peak() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError("no VmHWM")


if __name__ == "__main__":
    print(json.dumps(_publish_large(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
