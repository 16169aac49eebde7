"""Run programs as another user of this machine; needs root."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .node import REPO

NOBODY = 65534
SOMEBODY = 23_456  # a uid that no account has
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Connect to each TCP address or socket path, and print the results as JSON.
_CONNECT = """
import json, socket, sys
said = []
for place in json.loads(sys.argv[1]):
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family) as tried:
        tried.settimeout(5)
        try:
            tried.connect(place if isinstance(place, str) else tuple(place))
            said.append("connected")
        except OSError as error:
            said.append(type(error).__name__)
print(json.dumps(said))
"""


def as_user(uid: int, *argv: str, groups: Sequence[int] = ()) -> list[str]:
    """Return the command that runs `argv` as this user, with only its own group and `groups`."""
    kept = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", kept, *argv]


@functools.cache
def python_for(uid: int) -> tuple[str, dict[str, str]]:
    """Return a Python that this user can run, and the environment to find our packages."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, system):
        starts = as_user(
            uid, "sh", "-c", f"exec {program} -c ''"
        )  # setpriv itself starts it with root's rights
        if shutil.which(program) and subprocess.run(starts, capture_output=True).returncode == 0:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            return program, {} if program == sys.executable else {"PYTHONPATH": path}
    pytest.skip(f"user {uid} can start neither {sys.executable} nor {system}")


def connect_as(uid: int, places: Sequence[str | tuple[str, int]]) -> list[str]:
    """Connect to each place as this user and return `connected` or the error's name for each."""
    done = subprocess.run(
        as_user(uid, sys.executable, "-c", _CONNECT, json.dumps(places)),
        capture_output=True,
        text=True,
        check=True,
    )
    said: list[str] = json.loads(done.stdout)
    return said


def status_of(url: str, uid: int = 0, *options: str) -> int:
    """Return the HTTP status that curl gets as this user, or 0 without an answer."""
    quiet = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", *options, url]
    return int(subprocess.run(as_user(uid, *quiet), capture_output=True, text=True).stdout)


@contextmanager
def host_network() -> Iterator[None]:
    """Lock the host's network against containers of other tests of this checkout."""
    with (REPO / "compose.yaml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def common_folder(owner: int = 0) -> Iterator[Path]:
    """Create a folder that every user can enter, so that only the node's own modes restrict access."""
    folder = Path(tempfile.mkdtemp(prefix="mao-", dir="/tmp"))
    folder.chmod(0o755)
    os.chown(folder, owner, owner)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
