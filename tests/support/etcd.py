"""A real etcd for tests on free ports, which can be killed, frozen and restarted."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mao_shared.etcd_version import judge, read_output

from .ports import free_port

START_SECONDS = 20.0
_COMMAND = [
    "setpriv",  # executes etcd, which then dies with the test process however that ends
    "--pdeathsig=KILL",
    "etcd",
    "--name=test",
    "--heartbeat-interval=20",
    "--election-timeout=200",
    "--logger=zap",
    "--log-level=warn",
    "--log-outputs=stderr",
]


class EtcdServer:
    """A single-member etcd whose `endpoints` stays the same across restarts.

    Its data is kept in /dev/shm where that exists, since etcd 3.4 cannot disable fsync.
    """

    def __init__(self) -> None:
        shm = Path("/dev/shm")
        self.dir = Path(tempfile.mkdtemp(prefix="mao-etcd-", dir=shm if shm.is_dir() else None))
        self.port, self.peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoints(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start etcd and wait until it answers."""
        client, peer = f"http://{self.endpoints}", f"http://127.0.0.1:{self.peer_port}"
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        urls += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        with (self.dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, f"--data-dir={self.dir}/data", f"--initial-cluster=test={peer}", *urls],
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.call("kv/range", key=_base64("health"))
                return
            except OSError as error:
                assert self._process is not None
                gone = self._process.poll() is not None
                if gone or time.monotonic() > deadline:
                    log = (self.dir / "log").read_text()[-2000:]
                    raise RuntimeError(f"etcd does not answer ({error}); its log:\n{log}") from error
                time.sleep(0.02)

    def call(self, path: str, **body: Any) -> Any:
        """Call etcd's JSON gateway; raises OSError on failure."""
        request = urllib.request.Request(
            f"http://{self.endpoints}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def wipe(self) -> None:
        """Delete all keys."""
        self.call("kv/deleterange", key=_base64("\0"), range_end=_base64("\0"))

    def remove_data(self) -> None:
        """Delete the data; etcd must not be running."""
        shutil.rmtree(self.dir / "data")

    def back_up_data(self) -> None:
        """Copy the data aside; etcd must not be running."""
        shutil.copytree(self.dir / "data", self.dir / "kept")

    def restore_data(self) -> None:
        """Replace the data by the copy of `back_up_data`; etcd must not be running."""
        self.remove_data()
        shutil.copytree(self.dir / "kept", self.dir / "data")

    def compact(self, revision: int) -> None:
        """Compact the history below `revision` and wait until it is physically removed."""
        self.call("kv/compaction", revision=revision, physical=True)

    def kill(self) -> None:
        """Send SIGKILL, as a loss of power would end the process."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process with SIGSTOP: its connections stay open and silent."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + START_SECONDS
        while any(_state(thread) != "T" for thread in threads.iterdir()):
            assert time.monotonic() < deadline, "etcd does not stop"
            time.sleep(0.001)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill etcd and delete its data."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._process is not None
        self._process.wait(START_SECONDS)


def key_revisions(endpoints: str) -> dict[bytes, int]:
    """Return all keys of a node's etcd with their mod revisions, without the member's heartbeat."""
    asked = ["etcdctl", f"--endpoints={endpoints}", "get", "", "--prefix", "-w", "json"]
    environ = {**os.environ, "ETCDCTL_API": "3"}
    printed = subprocess.run(asked, env=environ, capture_output=True, text=True, check=True).stdout
    found = {base64.b64decode(kv["key"]): kv["mod_revision"] for kv in json.loads(printed).get("kvs", [])}
    return {key: revision for key, revision in found.items() if not key.startswith(b"/mao/members/")}


def version_of(program: str) -> str:
    """Return the version an etcd program reports, or an empty string if it does not run."""
    try:
        return read_output(subprocess.check_output([program, "--version"], text=True))
    except (OSError, subprocess.CalledProcessError):
        return ""


def unsafe_etcd() -> str:
    """Return the path of an etcd with the known permission fault; skip the test if there is none."""
    for folder in (*os.environ["PATH"].split(":"), "/usr/bin", "/usr/local/bin"):
        program = str(Path(folder) / "etcd")
        if (version := version_of(program)) and judge(version) == "unsafe":
            return program
    pytest.skip("needs an etcd before 3.4.42, 3.5.28 and 3.6.9, such as Debian 12's package etcd-server")


def _state(thread: Path) -> str:
    """Return a thread's state letter (R, S, T …), see proc(5)."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextlib.contextmanager
def running_etcd() -> Iterator[EtcdServer]:
    """Start an etcd for the block and stop it at the end, in whatever state it is."""
    server = EtcdServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()
