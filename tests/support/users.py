"""Programs that run as another user of this machine, as tests that are root can start them."""

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
SOMEBODY = 23_456  # no user of any machine that runs tests
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Tries to connect: to a TCP address, or to a socket by its path. Prints what came of each, as JSON.
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
    """The words that run a command as this user, with no groups but its own and these."""
    kept = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", kept, *argv]


@functools.cache
def python_for(uid: int) -> tuple[str, dict[str, str]]:
    """A Python that this user may start too, and the variables with which it finds our packages."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, system):
        starts = as_user(
            uid, "sh", "-c", f"exec {program} -c ''"
        )  # setpriv itself starts it with root's rights
        if shutil.which(program) and subprocess.run(starts, capture_output=True).returncode == 0:
            path = os.pathsep.join(each for each in sys.path if each)
            return program, {} if program == sys.executable else {"PYTHONPATH": path}
    pytest.skip(f"user {uid} can start neither {sys.executable} nor {system}")


def connecting(uid: int, places: Sequence[str | tuple[str, int]]) -> list[str]:
    """What a user gets who connects to each place: `connected`, or the error's name."""
    done = subprocess.run(
        as_user(uid, sys.executable, "-c", _CONNECT, json.dumps(places)),
        capture_output=True,
        text=True,
        check=True,
    )
    said: list[str] = json.loads(done.stdout)
    return said


def status_of(url: str, uid: int = 0, *options: str) -> int:
    """The HTTP status that curl gets as this user; 0 where there is no answer."""
    quiet = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", *options, url]
    return int(subprocess.run(as_user(uid, *quiet), capture_output=True, text=True).stdout)


@contextmanager
def host_network() -> Iterator[None]:
    """Keeps other tests of this checkout from running containers on the host's network meanwhile."""
    with (REPO / "compose.yaml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def common_folder(owner: int = 0) -> Iterator[Path]:
    """A folder that everybody may enter, so that nothing but the node itself keeps others out of it."""
    folder = Path(tempfile.mkdtemp(prefix="mao-", dir="/tmp"))
    folder.chmod(0o755)
    os.chown(folder, owner, owner)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
