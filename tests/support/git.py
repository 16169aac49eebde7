"""Real git for tests: the command line, against which what pygit2 made is checked."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pygit2
from pygit2.enums import SortMode

ENV = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}


def git(repository: Path, *args: str, feed: str | None = None) -> str:
    """What git prints, stripped; raises AssertionError with its message when it fails."""
    done = subprocess.run(
        ["git", "-C", str(repository), *args], env=ENV, capture_output=True, text=True, input=feed
    )
    assert done.returncode == 0, f"git {' '.join(args)}: {done.stderr}"
    return done.stdout.strip()


def trailers(repository: Path, branch: str, key: str) -> list[str]:
    """A trailer's value of each commit of a branch that has it, newest first; several are joined by ','.

    They are read with libgit2: tests ask for them often, and git takes longer to start than to read them.
    """
    found = pygit2.Repository(str(repository))
    values = []
    for commit in found.walk(found.revparse_single(branch).id, SortMode.TOPOLOGICAL | SortMode.TIME):
        if key in commit.message_trailers:  # which has only the last of several
            block = commit.message.rstrip().rpartition("\n\n")[2]
            lines = [line.partition(": ") for line in block.splitlines()]
            values.append(",".join(value for name, _, value in lines if name == key))
    return values


def file_at(repository: Path, spec: str) -> str:
    """What `git show REVISION:PATH` prints, stripped, without starting git."""
    found = pygit2.Repository(str(repository)).revparse_single(spec)
    assert isinstance(found, pygit2.Blob), spec
    return found.data.decode().strip()


def bare_repository(path: Path) -> Path:
    """A new, empty bare repository."""
    shutil.copytree(_empty_repository(), path, dirs_exist_ok=True)
    return path


@functools.cache
def _empty_repository() -> Path:
    """What git makes, once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="mao-test-"))
    folder.chmod(0o755)  # for tests that give up root's rights
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder / "git")], env=ENV, check=True)
    return folder / "git"
