"""Programs to compare with, in virtual environments of their own in var/."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import free_ports

from .processes import Idle, observe, running, tree, wait_for_answer

HERE = Path(__file__).resolve().parent
LOCK = HERE / "peers.lock"
VAR = HERE.parent / "var"


def python(name: str = "bench-peers", lock: Path = LOCK) -> str:
    """Return the interpreter of an environment in var/; install its lock file if it is outdated."""
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    venv = VAR / name
    mark = venv / ".lock-hash"
    if not mark.is_file() or mark.read_text() != wanted:
        print(f"bench: installing the programs to compare with into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input"]
        options = ["--require-hashes", "--no-deps", "--requirement", str(lock)]  # a lock names all
        subprocess.run([*pip, *options], check=True, stderr=subprocess.DEVNULL)
        mark.write_text(wanted)
    return str(venv / "bin/python")


def apscheduler_lateness(store: str, folder: Path, *, jobs: int, due: int, rounds: int) -> list[list[float]]:
    """Return the lateness of each job in seconds, by round. `store`: `memory` or `sqlite`."""
    script = HERE / "apscheduler_lateness.py"
    argv = [python(), str(script), store, str(folder / "jobs.sqlite"), str(jobs), str(due), str(rounds)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"APScheduler with its {store} store failed:\n{done.stderr[-3000:]}")
    rows: list[list[float]] = json.loads(done.stdout)
    return rows


def prefect_idle(folder: Path, *, settle: float, seconds: float) -> Idle:
    """Measure an idle Prefect server with SQLite and one idle process worker."""
    with _prefect(folder) as pids:
        observe(pids(), settle)
        return observe(pids(), seconds)


@contextlib.contextmanager
def _prefect(folder: Path) -> Iterator[_Pids]:
    port = free_ports(1)
    env = _prefect_environment(folder, port)
    prefect = [python(), "-m", "prefect"]
    server = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(server, folder / "server.log", env) as server_process:
        wait_for_answer(f"http://127.0.0.1:{port}/api/health", server_process)
        pool = [*prefect, "work-pool", "create", "bench", "--type", "process"]
        subprocess.run(pool, env=env, check=True, capture_output=True)
        worker = [*prefect, "worker", "start", "--pool", "bench"]
        with running(worker, folder / "worker.log", env) as worker_process:
            yield _Pids(server_process.pid, worker_process.pid)


class _Pids:
    """Returns the current descendants of some processes."""

    def __init__(self, *roots: int) -> None:
        self.roots = roots

    def __call__(self) -> list[int]:
        return [pid for root in self.roots for pid in tree(root)]


def _prefect_environment(folder: Path, port: int) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "HOME": str(folder),
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
