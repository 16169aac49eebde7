"""Making and opening bare clones."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryOpenFlag

from mao_shared.errors import AlreadyExists, NotFound, Unavailable
from mao_shared.models import GROUND_TRUTH

REMOTE = "origin"
TRACKED = f"refs/remotes/{REMOTE}/"
FETCH_SPEC = f"+refs/heads/*:{TRACKED}*"
TEMPORARY = ".new-"  # names of half-made repositories begin so; a dataset's name cannot


@dataclass(frozen=True, slots=True)
class Clone:
    """An open bare clone and its remote. `git` is for this package only."""

    path: Path
    url: str
    git: pygit2.Repository


class CloneBroken(Unavailable):
    """A clone that cannot be worked with; whoever meets it tries again, since it is made anew."""

    default_code = "clone-broken"

    @classmethod
    def of(cls, dataset: str, why: str) -> CloneBroken:
        return cls(
            f"The clone of dataset {dataset!r} on this node is broken: {why}.",
            next=f"It is set aside and cloned anew by itself; see: maoctl dataset get {dataset}.",
        )


def open_clone(path: Path) -> Clone:
    """Opens a clone; raises NotFound when it is not there, CloneBroken for one that is there and is none."""
    try:
        git = pygit2.Repository(str(path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)
        clone = Clone(path, str(git.remotes[REMOTE].url), git)
    except (pygit2.GitError, KeyError, ValueError) as error:
        if os.path.lexists(path):
            raise CloneBroken.of(path.stem, str(error)) from error
        raise NotFound(
            f"This node has no clone of dataset {path.stem!r}.",
            code="dataset-not-here",
            next="Enrol in a pipeline that uses it: maoctl pipeline init.",
        ) from error
    for name in ("HEAD", "packed-refs"):  # git never leaves them so, and branches would be forgotten
        with suppress(FileNotFoundError):
            if (path / name).stat().st_size == 0:
                raise CloneBroken.of(path.stem, f"its file {name} is emptied")
    return clone


def create_clone(path: Path, url: str) -> Path:
    """A bare clone of `url` in the making beside `path`, without its commits yet; `finish_clone` names it.

    Until it is renamed nobody takes it for a dataset, so a kill in between leaves nothing half-made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    git = pygit2.init_repository(str(temporary), bare=True, initial_head="main")
    git.remotes.create(REMOTE, url, FETCH_SPEC)
    git.config["core.fsyncObjectFiles"] = True  # a commit is on the disk before it counts; references as well
    return temporary


def discard_clone(temporary: Path) -> None:
    """Removes a clone in the making."""
    shutil.rmtree(temporary, ignore_errors=True)


def finish_clone(temporary: Path, path: Path) -> None:
    """Gives a clone its name; one that is there already stays and the new one goes."""
    try:
        os.rename(temporary, path)  # noqa: PTH104 (fails on a folder that is not empty; Path.replace says less)
    except OSError:
        shutil.rmtree(temporary)


def create_bare(path: Path) -> None:
    """An empty bare repository that serves as a remote; raises AlreadyExists when there is one.

    HEAD names ground truth, so that `git clone` checks out what the nodes agree on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    pygit2.init_repository(str(temporary), bare=True, initial_head=GROUND_TRUTH)
    try:
        os.rename(temporary, path)  # noqa: PTH104 (as above)
    except OSError as error:
        shutil.rmtree(temporary)
        raise AlreadyExists(
            f"The repository {path.stem!r} exists already at {path}.",
            next=f"Use another name, or register it: maoctl dataset add NAME {path}",
            master=str(path),
        ) from error
