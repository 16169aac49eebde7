"""Fetches and pushes the content of large files by running git-lfs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable

import pygit2

from mao_git import repository
from mao_git.lfs import content_path
from mao_git.repository import Repository
from mao_shared.errors import MaoError, NotFound, RemoteUnavailable, Unavailable

from . import host_keys
from .access import RemoteAccess
from .errors import auth_failed

_BATCH_SIZE = 100  # objects per call
_INACTIVITY_SECONDS = 60  # seconds without any progress
_TIMEOUT_SECONDS = 12 * 3600  # seconds for one call, however large the files
_REFUSED = re.compile(r"authentication|permission denied|credentials|\b40[13]\b", re.IGNORECASE)
_ABSENT = re.compile(r"not found|\b404\b|does not exist|missing", re.IGNORECASE)


def push_content(repo: Repository, access: RemoteAccess) -> None:
    """Push the content that the remote does not have yet. Raises MaoError."""
    waiting = repo.path / "lfs" / "waiting"
    names = sorted(path.name for path in waiting.iterdir()) if waiting.is_dir() else []
    here = [name for name in names if content_path(repo, name).exists()]
    for begin in range(0, len(here), _BATCH_SIZE):
        _run(repo, access, ["push", "--object-id", "origin", *here[begin : begin + _BATCH_SIZE]])
    for name in names:
        (waiting / name).unlink(missing_ok=True)


def fetch_lfs(repo: Repository, commit: str, access: RemoteAccess) -> None:
    """Fetch the missing content of all pointers in a commit. Raises MaoError."""
    _run(repo, access, ["fetch", "origin", commit])


def _run(repo: Repository, access: RemoteAccess, words: Iterable[str]) -> None:
    argv = ["git", "-C", str(repo.path), *_options(repo.url, access), "lfs", *words]
    if (host := host_keys.parse_ssh_host(repo.url)) is not None:  # git-lfs may connect before git itself does
        host_keys.trust_listed(pygit2.settings.homedir or "/", host)
    try:
        done = subprocess.run(  # noqa: S603 (no shell; every word is ours or checked by check_url)
            argv,
            env=_environment(access),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise _no_program() from None
    except subprocess.TimeoutExpired:
        raise RemoteUnavailable(
            f"Git LFS timed out after {_TIMEOUT_SECONDS} s at {repo.url}.", remote=repo.url
        ) from None
    if done.returncode == 0:
        return
    output = done.stderr.strip() or done.stdout.strip()
    line = " ".join(output.split())[-500:]
    if "is not a git command" in output or "lfs' is not" in output:
        raise _no_program()
    if _REFUSED.search(output):
        raise auth_failed(repo.url, f"Git LFS: {line}")
    if _ABSENT.search(output):
        raise NotFound(
            f"Git LFS has no such content at {repo.url}: {line}",
            code="lfs-content-missing",
            next="Check that the remote serves Git LFS, and push what is missing: git lfs push --all origin",
            remote=repo.url,
        )
    raise RemoteUnavailable(
        f"Git LFS failed at {repo.url}: {line}",
        code="lfs-failed",
        next="The content is kept on this node and is pushed later. Check that the remote serves Git LFS.",
        remote=repo.url,
    )


def _options(url: str, access: RemoteAccess) -> list[str]:
    """Return settings that override any `.lfsconfig` of the dataset: the endpoint, and no filters."""
    path = access.local(url)
    endpoint = url
    if path is not None:
        endpoint = path.as_uri()
    elif url.startswith(("http://", "https://")):
        endpoint = f"{url.rstrip('/').removesuffix('.git')}.git/info/lfs"
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
        "lfs.activitytimeout": str(_INACTIVITY_SECONDS),
        "credential.helper": "",
        "safe.directory": "*",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _environment(access: RemoteAccess) -> dict[str, str]:
    """Return git's environment. ssh gets the keys by a link, since their path may have a meaning to ssh."""
    home = str(pygit2.settings.homedir)
    ssh = ["ssh", "-oBatchMode=yes", "-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=yes", "-F", os.devnull]
    ssh += [f"-oUserKnownHostsFile={home}/.ssh/known_hosts", "-oConnectTimeout=15"]
    ssh += [f"-oIdentityFile={home}/{repository.KEYS}/{key.name}" for key in access.private_keys()]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": shlex.join(ssh),
    }


def _no_program() -> MaoError:
    return Unavailable(
        "A dataset keeps large files in Git LFS, and this node has no git-lfs program.",
        code="lfs-missing",
        next="Install it: apt-get install git-lfs (or scripts/machine.sh git-lfs). No data is lost.",
    )
