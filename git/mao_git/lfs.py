"""Git LFS: large files as pointers in git, their content beside it. The only place that runs git-lfs.

Content lies in the clone as git-lfs keeps it (`lfs/objects/ab/cd/<sha256>`). What the remote was not yet
given is marked in `lfs/waiting`, before the commit that points to it exists, and pushed before any branch is.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import NoReturn

import pygit2

from mao_shared.errors import MaoError, NotFound, RemoteUnavailable, Unavailable

from .clone import Clone
from .remotes import mao_datamgmt_host_keys
from .remotes.remote_access import RemoteAccess
from .remotes.repository_errors import auth_failed

PIECE = 1 << 20
POINTER_MIN, POINTER_MAX = 120, 200  # bytes; ours have about 130
ATTRIBUTES = ".gitattributes"
MARK = ".mao/lfs"  # see lfs_declared
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"
)
_AT_ONCE = 100  # objects a call
_SILENCE = 60  # seconds without any progress
_LONGEST = 12 * 3600  # seconds for one call, however large the files
_REFUSED = re.compile(r"authentication|permission denied|credentials|\b40[13]\b", re.IGNORECASE)
_ABSENT = re.compile(r"not found|\b404\b|does not exist|missing", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What git holds instead of a file: sha256 of its content, and its size in bytes."""

    oid: str
    size: int

    def text(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()
        )


class ContentMissing(Exception):
    """The clone has a pointer whose content is not here; see `bring_content`."""


def parse(data: bytes) -> Pointer | None:
    """The pointer that a blob is; None for any other content."""
    match = _POINTER.fullmatch(data) if len(data) <= POINTER_MAX else None
    return None if match is None else Pointer(match[1].decode(), int(match[2]))


def may_be_pointer(size: int) -> bool:
    """Whether a file of `size` bytes is worth looking into."""
    return POINTER_MIN <= size <= POINTER_MAX


def uses_lfs(tree: pygit2.Tree) -> bool:
    """Whether every blob in this tree that looks like a pointer stands for other content."""
    if MARK in tree:
        return True
    attributes = tree[ATTRIBUTES] if ATTRIBUTES in tree else None  # noqa: SIM401 (a tree has no 'get')
    return isinstance(attributes, pygit2.Blob) and b"filter=lfs" in attributes.data


def content_path(clone: Clone, oid: str) -> Path:
    return clone.path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid


def holds_content(clone: Clone) -> bool:
    """Whether the clone has any content."""
    return (clone.path / "lfs" / "objects").is_dir()


def is_here(clone: Clone, pointer: Pointer) -> bool:
    """Whether the clone has content of that name and size."""
    try:
        return content_path(clone, pointer.oid).stat().st_size == pointer.size
    except FileNotFoundError:
        return False


def content_pieces(clone: Clone, pointer: Pointer) -> Iterator[bytes]:
    """The content; raises ContentMissing when it is not here, OSError at its end when it is another."""
    digest = hashlib.sha256()
    try:
        file = content_path(clone, pointer.oid).open("rb")
    except FileNotFoundError:
        raise ContentMissing(pointer.oid) from None
    with file:
        while piece := file.read(PIECE):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != pointer.oid:
        raise OSError(f"the copy here of the large file {pointer.oid[:12]} is broken: its digest is another")


def store(clone: Clone, stream: BufferedIOBase) -> Pointer:
    """Takes content in, to be pushed with the next push; it is on the disk when this returns."""
    folder = clone.path / "lfs"
    for name in ("tmp", "waiting"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    temporary, digest, size = folder / "tmp" / f"mao-{secrets.token_hex(8)}", hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            while piece := stream.read(PIECE):
                digest.update(piece)
                size += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        pointer = Pointer(digest.hexdigest(), size)
        target = content_path(clone, pointer.oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "waiting" / pointer.oid).touch()
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    for parent in (folder / "waiting", *list(target.parents)[:3]):
        _sync_folder(parent)
    return pointer


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def push_content(clone: Clone, access: RemoteAccess) -> None:
    """Gives the remote the content that it has not got yet; raises MaoError."""
    waiting = clone.path / "lfs" / "waiting"
    names = sorted(path.name for path in waiting.iterdir()) if waiting.is_dir() else []
    here = [name for name in names if content_path(clone, name).exists()]
    for begin in range(0, len(here), _AT_ONCE):
        _run(clone, access, ["push", "--object-id", "origin", *here[begin : begin + _AT_ONCE]])
    for name in names:
        (waiting / name).unlink(missing_ok=True)


def bring_content(clone: Clone, commit: str, access: RemoteAccess) -> None:
    """Fetches the content of all pointers in a commit that is not here; raises MaoError."""
    _run(clone, access, ["fetch", "origin", commit])


def content_missing(clone: Clone, missing: ContentMissing) -> MaoError:
    return NotFound(
        f"The content {str(missing)[:12]}… of a large file of dataset {clone.path.stem!r} is neither here "
        f"nor at the remote {clone.url}.",
        code="lfs-content-missing",
        next="Push it from where it is: git lfs push --all origin; then try again.",
    )


def _run(clone: Clone, access: RemoteAccess, words: Iterable[str]) -> None:
    argv = ["git", "-C", str(clone.path), *_options(clone.url, access), "lfs", *words]
    if (
        site := mao_datamgmt_host_keys.site_of(clone.url)
    ) is not None:  # it may be spoken to before git itself is
        mao_datamgmt_host_keys.admit(pygit2.settings.homedir or "/", site)
    try:
        done = subprocess.run(  # noqa: S603 (no shell; every word is ours or checked by check_url)
            argv, env=_environment(access), capture_output=True, text=True, timeout=_LONGEST, check=False
        )
    except FileNotFoundError:
        raise _no_program() from None
    except subprocess.TimeoutExpired:
        raise RemoteUnavailable(
            f"Git LFS did not end in {_LONGEST} s at {clone.url}.", remote=clone.url
        ) from None
    if done.returncode != 0:
        _fail(clone, done.stderr.strip() or done.stdout.strip())


def _options(url: str, access: RemoteAccess) -> list[str]:
    """Where content goes and comes from, and that none is left out, is our own choice: no `.lfsconfig` of a
    dataset can say otherwise."""
    endpoint = _endpoint(url, access)
    settings = {
        "lfs.url": endpoint,
        "lfs.pushurl": endpoint,
        "lfs.fetchinclude": "",
        "lfs.fetchexclude": "",
        "lfs.skipdownloaderrors": "false",
        "lfs.allowincompletepush": "false",
        "lfs.locksverify": "false",
        "lfs.dialtimeout": "15",
        "lfs.tlstimeout": "15",
        "lfs.activitytimeout": str(_SILENCE),
        "credential.helper": "",
        "safe.directory": "*",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _endpoint(url: str, access: RemoteAccess) -> str:
    path = access.local(url)
    if path is not None:
        return path.as_uri()
    if url.startswith(("http://", "https://")):
        base = url.rstrip("/")
        return f"{base if base.endswith('.git') else base + '.git'}/info/lfs"
    return url


def _environment(access: RemoteAccess) -> dict[str, str]:
    """ssh is given the keys by the link to their folder, whose own path may mean something to it."""
    home = str(pygit2.settings.homedir)
    ssh = ["ssh", "-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=yes", "-F", os.devnull]
    ssh += [f"-oUserKnownHostsFile={home}/.ssh/known_hosts", "-oConnectTimeout=15"]
    ssh += [
        f"-oIdentityFile={home}/{mao_datamgmt_host_keys.KEYS}/{key.name}" for key in access.private_keys()
    ]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": shlex.join(ssh),
    }


def _fail(clone: Clone, said: str) -> NoReturn:
    line = " ".join(said.split())[-500:]
    if "is not a git command" in said or "lfs' is not" in said:
        raise _no_program()
    if _REFUSED.search(said):
        raise auth_failed(clone.url, f"Git LFS: {line}")
    if _ABSENT.search(said):
        raise NotFound(
            f"Git LFS has no such content at {clone.url}: {line}",
            code="lfs-content-missing",
            next="See that the remote serves Git LFS, and push what is missing: git lfs push --all origin.",
            remote=clone.url,
        )
    raise RemoteUnavailable(
        f"Git LFS failed at {clone.url}: {line}",
        code="lfs-failed",
        next="The content is kept on this node and is pushed later. Check that the remote serves Git LFS.",
        remote=clone.url,
    )


def _no_program() -> MaoError:
    return Unavailable(
        "A dataset keeps large files in Git LFS, and this node has no git-lfs program.",
        code="lfs-missing",
        next="Install it: apt-get install git-lfs (or scripts/machine.sh git-lfs). Nothing is lost.",
    )
