"""With what a remote is opened, and which folders of this machine may be one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mao_shared.errors import Forbidden
from mao_shared.git_urls import local_path

from .access import usable_keys
from .repository_errors import at_remote

_MOST_LINES = 100  # alternates of a repository, and how many of theirs are followed


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """With what this node opens remotes: the private keys in `key_dir`, no agent and no passwords.

    `roots`: folders below which repositories of this machine may be opened, see `local`.
    """

    key_dir: Path | None = None
    roots: tuple[Path, ...] = ()

    def private_keys(self) -> list[Path]:
        """The private keys that can be used, best first."""
        return usable_keys(self.key_dir)

    def local(self, url: str) -> Path | None:
        """Where a repository of this machine really is; None for a remote over the network.

        Asked each time that one is opened, since a link may have come in between: this process has rights
        that whoever registered the dataset has not. Raises Forbidden (`remote-not-allowed`) when the
        repository, or a part of it that its own files name, lies outside of `roots`, and what `at_remote`
        raises.
        """
        path = local_path(url)
        if path is None:
            return None
        real = Path(os.path.realpath(path))
        self._require(real, url)
        with at_remote(url, real):
            parts = list(_parts(real))
        for part in parts:
            self._require(part, url)
        return real

    def _require(self, real: Path, url: str) -> None:
        if any(real.is_relative_to(os.path.realpath(root)) for root in self.roots):
            return
        shown = "" if str(real) == url else f", which is {real},"
        folders = dict.fromkeys(map(str, (*self.roots, real.parent)))
        setting = os.pathsep.join(each for each in folders if os.pathsep not in each)  # none can be named
        raise Forbidden(
            f"The remote {url}{shown} lies in no folder whose repositories this node may open "
            f"({', '.join(map(str, self.roots)) or 'there is none'}).",
            code="remote-not-allowed",
            next=f"If the node may write there with its own rights, set MAO_LOCAL_REMOTES={setting} in its "
            f"environment and restart it; under compose in .env, with {real.parent} mounted at the same "
            "place (docs/datasets.md). Else use a remote over SSH or https, or make one that the node "
            "keeps: maoctl dataset init NAME. Commits that are made meanwhile are kept.",
            remote=url,
        )


def _parts(repository: Path) -> Iterator[Path]:
    """Where a repository's parts really are that may lie elsewhere: by links, `gitdir:`, or alternates."""
    inside = repository / ".git"
    named = _first_line(inside) if inside.is_file() else ""
    if named.startswith("gitdir:"):
        inside = repository / named.removeprefix("gitdir:").strip()
    git = inside if inside.exists() else repository
    if git != repository:
        yield Path(os.path.realpath(git))
    common = _first_line(git / "commondir")
    folders = [git, *([git / common] if common else [])]
    for folder in folders:
        yield Path(os.path.realpath(folder))
        names = ("HEAD", "config", "packed-refs", "refs", "objects")
        yield from _linked(folder / name for name in names)
        for each in ("objects", "objects/pack", "objects/info", "refs", "refs/heads"):
            yield from _linked(_entries(folder / each))
        yield from _alternates(folder / "objects")


def _alternates(first: Path) -> Iterator[Path]:
    todo, seen = [first], 0
    while todo and seen < _MOST_LINES:
        objects = todo.pop()
        for line in _lines(objects / "info" / "alternates"):
            seen += 1
            other = Path(os.path.realpath(objects / line))
            yield other
            todo.append(other)


def _linked(paths: Iterable[Path]) -> Iterator[Path]:
    return (Path(os.path.realpath(path)) for path in paths if path.is_symlink())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines()[:_MOST_LINES]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
