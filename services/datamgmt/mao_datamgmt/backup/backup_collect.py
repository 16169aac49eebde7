"""What goes into a backup, read in an order that makes it one state of the node. Blocking.

Each later part knows at least what the earlier ones rely on:

    tips of the clones → store → workspaces whose output waits → everything else → clones → local remotes

A node that is restored from that is like one that was killed at the store's moment, with commits, values and
agreements that came a little later. Those it is used to: docs/decisions/0029-backups.md.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import mao_git
from mao_shared.errors import MaoError
from mao_shared.host.data_dir import DataDir
from mao_shared.models import Run
from mao_shared.states import StepPhase

from .archive import HEADER, SETTINGS, STORE, ArchiveWriter, Header
from .collect import DISKS_OWN, GIT, Places
from .repositories import copy_repository, refuse_unread

WORKSPACES = "workspaces"
_WAITS = (StepPhase.EXITED, StepPhase.PUBLISHING)


def read_tips(data: Path, node: str) -> dict[str, str | None]:
    """Dataset → the tip of the node's branch in its clone; None where there is none, or it cannot be read."""
    tips: dict[str, str | None] = {}
    for path in sorted((data / "datasets").glob("*.git")):
        if path.name.startswith("."):
            continue
        try:
            tips[path.stem] = mao_git.find_branch(mao_git.open_clone(path), node)
        except (MaoError, *mao_git.TROUBLE):  # a broken clone is copied as it is
            tips[path.stem] = None
    return tips


def waiting_outputs(run: Run) -> list[tuple[str, int, int]]:
    """Run, step and attempt of what a tool has left and is not committed yet."""
    steps = enumerate(run.steps)
    return [(run.id, index, step.attempt) for index, step in steps if step.phase in _WAITS]


def collect(
    writer: ArchiveWriter,
    places: Places,
    header: Header,
    store: tuple[IO[bytes], int],
    waiting: list[tuple[str, int, int]],
    settings: Mapping[str, str],
) -> None:
    """Writes all but the store's dump was read before this. `store`: the dump and its size.

    Raises OSError, among them `repositories.Restless`: then once more from the beginning.
    """
    writer.add_bytes(HEADER, header.model_dump_json().encode())
    writer.add_stream(STORE, *store)
    writer.add_bytes(SETTINGS, json.dumps(dict(settings), indent=1, sort_keys=True).encode())
    data = DataDir(places.data)
    for run, index, attempt in waiting:
        _add_output(writer, places.data, data.workspace(run, index, attempt).root)
    for name in places.in_data():
        if name not in (*GIT, WORKSPACES):
            _add_tree(writer, places.data / name, f"data/{name}")
    for name in places.in_agreements():
        _add_tree(writer, places.agreements / name, f"agreements/{name}")
    for name in places.in_federation():
        _add_tree(writer, places.federation / name, f"federation/{name}")
    for name in GIT:
        _add_repositories(writer, places.data / name, f"data/{name}")


def _add_tree(writer: ArchiveWriter, path: Path, name: str) -> None:
    """A file, or all files below a folder; links below it and what is being written are left out.

    It may be a link itself, to where the operator has more room.
    """
    path = path.resolve()
    if not path.is_dir():
        writer.add_file(name, path)
        return
    for file in _walk(path):
        if not file.name.startswith(".new-"):
            writer.add_file(f"{name}/{file.relative_to(path).as_posix()}", file)


def _add_repositories(writer: ArchiveWriter, folder: Path, name: str) -> None:
    """What is below a folder: repositories as such, wherever they lie (`aside` has them one level deeper).

    A repository may be a link, to where the operator has more room; other links are left out.
    """
    if not folder.is_dir():
        return
    for each in sorted(folder.iterdir()):
        if each.name.startswith(".new-") or each.name == DISKS_OWN:
            continue
        inside = f"{name}/{each.name}"
        if (each / "objects").is_dir() and (each / "HEAD").is_file():
            copy_repository(each.resolve(), inside, writer.add_file)
        elif each.is_symlink():
            continue
        elif each.is_dir():
            _add_repositories(writer, each, inside)
        else:
            writer.add_file(inside, each)


def _add_output(writer: ArchiveWriter, data: Path, root: Path) -> None:
    """A workspace as a tool left it; what publishing refuses anyway (devices, sockets) is left out."""
    for path in _walk(root):
        name = f"data/{path.relative_to(data).as_posix()}"
        if path.is_symlink():
            writer.add_link(name, os.readlink(path))  # noqa: PTH115 (as text, whatever it is)
        else:
            writer.add_file(name, path)


def _walk(folder: Path) -> Iterator[Path]:
    """Files and links below a folder; links to folders are links. Raises OSError for what cannot be read."""
    for at, folders, names in os.walk(folder, onerror=refuse_unread):
        linked = [name for name in folders if Path(at, name).is_symlink()]
        folders[:] = sorted({*folders} - {*linked} - {DISKS_OWN if Path(at) == folder else ""})
        for name in sorted([*names, *linked]):
            path = Path(at, name)
            try:
                kind = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISREG(kind) or stat.S_ISLNK(kind):
                yield path
