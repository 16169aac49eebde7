"""The layout of a node's data directory, shared by the runner and the data manager.

<data_dir>/
├── datasets/<dataset>.git            bare clone, never seen by a tool
├── aside/<dataset>-<time>/           a clone that was unused or broken and set aside
├── bare/<name>.git                   local remotes created by POST /bare-repo/init
├── worktrees/<dataset>/              the last published step's folder, reused by the next step
├── workspaces/<run>/<step>.<attempt>/
│   ├── data/                         mounted at /usr/src/app/data, writable
│   └── input/                        mounted at /usr/src/app/input, read-only
├── inbox/<dataset>/<id>.json         external values that are not committed yet
├── agreements/<pipeline>.json        the operator's agreements (see `mao_shared.agreements`)
├── logs/<run>/<step>.<attempt>.log   the container's output
├── replaced/<time>/                  content replaced by `maoctl node restore --replace`
├── secret.key  tool-secrets.key      keys of what is kept encrypted in etcd (`mao_shared.host.sealed`)
├── restore.json                      exists while a restore is unfinished
├── runner.lock  datamgmt.lock        locks of the running processes (`process_lock`)
└── etcd/                             the data of a native node's etcd

Steps count from 0, attempts from 1. Other users have no access (`make_data_dir_private`).

A lock, released when the process ends, ensures that only one process of a service uses a data directory:
folders and containers have no revisions to guard writes, unlike records in etcd.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mao_shared.errors import Conflict

from .files import make_private

TOOLS_WORK_IN = ("workspaces", "worktrees")  # private, but the entries below have the tools' modes
AGREEMENTS = "agreements"  # the registry manages the modes of its files itself
_FOLDERS = ("datasets", "aside", "bare", "inbox", "logs", "git-home", "federation", "etcd")
_FILES = ("secret.key", "tool-secrets.key", "installation", "node.lock", "runner.lock", "datamgmt.lock")
RESTORING = "restore.json"
TOOL_DATA = "/usr/src/app/data"
TOOL_INPUT = "/usr/src/app/input"


def make_data_dir_private(data_dir: Path) -> None:
    """Create the data directory, or remove other users' access to an existing one; raises OSError. Blocks.

    Tools access their folders through the engine's mounts, so no other user needs access.
    """
    make_private(data_dir, names=(*_FOLDERS, *_FILES), shallow=TOOLS_WORK_IN)


def check_restore_finished(data_dir: Path) -> None:
    """Raise Conflict (`restore-unfinished`) for a data directory with an incomplete restore."""
    if (data_dir / RESTORING).exists():
        raise Conflict(
            f"A restore into {data_dir} was started and has not finished.",
            code="restore-unfinished",
            next="Resume it with the same file: maoctl node restore FILE",
        )


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one attempt of one step."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def input(self) -> Path:
        return self.root / "input"


@dataclass(frozen=True, slots=True)
class DataDir:
    """Builds the paths in the data directory from names and ids, which must be valid."""

    root: Path

    def clone(self, dataset: str) -> Path:
        return self.root / "datasets" / f"{dataset}.git"

    def aside(self, dataset: str, now: datetime) -> Path:
        return self.root / "aside" / f"{dataset}-{now:%Y%m%dT%H%M%S.%fZ}"

    def bare(self, name: str) -> Path:
        return self.root / "bare" / f"{name}.git"

    def worktree(self, dataset: str) -> Path:
        return self.root / "worktrees" / dataset

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    def run_workspaces(self, run_id: str) -> Path:
        return self.root / "workspaces" / run_id

    def workspace(self, run_id: str, step: int, attempt: int) -> Workspace:
        return Workspace(self.run_workspaces(run_id) / f"{step}.{attempt}")

    def run_logs(self, run_id: str) -> Path:
        return self.root / "logs" / run_id

    def log(self, run_id: str, step: int, attempt: int) -> Path:
        return self.run_logs(run_id) / f"{step}.{attempt}.log"


@contextmanager
def process_lock(data_dir: Path, service: str) -> Iterator[None]:
    """Hold `<data_dir>/<service>.lock`; raises Conflict (`already-running`) if another process holds it."""
    make_data_dir_private(data_dir)
    path = data_dir / f"{service}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another {service} is already running on the data directory {data_dir}.",
                code="already-running",
                next=f"Stop one of the two (find it: fuser {path}), or give one its own MAO_DATA_DIR and "
                "MAO_NODE.",
            ) from error
        yield
