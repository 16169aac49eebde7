"""A native node for tests and benchmarks: `python -m mao_node` on free ports, in its own folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mao_node.preflight import socket_dir
from mao_node.processes import ETCD_CLIENT

from .folders import MEMORY
from .ports import free_ports

PORTS_OF_A_NODE = 9  # the gateway's port, and two for the federation's etcd at +7 and +8
START_LIMIT = 60.0  # seconds
REPO = Path(__file__).resolve().parents[2]


class NativeNode:
    """A node process started by `start` and stopped by `stop`; `log` keeps every line of its output."""

    def __init__(
        self,
        root: Path,
        name: str = "node-1",
        env: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        """Prepare a node; `wrap` is put before the command, for example to enter a network namespace."""
        self.name = name
        self._python = python
        self._wrap = list(wrap)
        self.data_dir = root / name
        self.port = free_ports(PORTS_OF_A_NODE)
        self.env = {
            **os.environ,
            "MAO_NODE": name,
            "MAO_DATA_DIR": str(self.data_dir),
            "MAO_GATEWAY_PORT": str(self.port),
            # Tests make remotes wherever they have folders (tests/support/folders.py).
            "MAO_LOCAL_REMOTES": f"{root}:{tempfile.gettempdir()}:{MEMORY}",
            **(env or {}),
        }
        self.log: list[str] = []
        self._said = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sockets(self) -> Path:
        """The folder of the unix sockets of the node's processes."""
        return socket_dir(self.data_dir.absolute())

    @property
    def etcd(self) -> str:
        """The node's etcd endpoint in the form of MAO_ETCD_ENDPOINTS."""
        return f"unix://{self.sockets / ETCD_CLIENT}"

    def service(self, name: str) -> httpx.Client:
        """Return a client that calls a service directly over its socket."""
        way = httpx.HTTPTransport(uds=str(self.sockets / f"{name}.sock"))
        return httpx.Client(base_url="http://localhost", transport=way, timeout=30)

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> NativeNode:
        """Start the node and wait until it reports that every service is ready."""
        self._process = subprocess.Popen(
            [*self._wrap, self._python, "-m", "mao_node"],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.wait_for_line(lambda line: "is ready" in line, START_LIMIT)
        return self

    def restart(self) -> NativeNode:
        """Start the node again on the same data after `stop`."""
        self.log.clear()
        self.http = httpx.Client(base_url=self.url, timeout=30)
        return self.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._said:
                    self.log.append(line.rstrip())
                    self._said.notify_all()
        with self._said:
            self.log.append("(the node's log ends here)")
            self._said.notify_all()

    def wait_for_line(self, wanted: Callable[[str], bool], timeout: float, since: int = 0) -> None:
        """Wait until `wanted` holds for a log line from index `since` on; raises TimeoutError."""
        with self._said:
            if not self._said.wait_for(lambda: any(map(wanted, self.log[since:])), timeout):
                raise TimeoutError("\n".join(["the node did not say so:", *self.log[-60:]]))

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; raises TimeoutExpired if the node does not exit in 60 s."""
        self.http.close()
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        finally:
            self._process.wait()
            self._reader.join(10)

    def kill_all(self) -> None:
        """Kill the supervisor and all its descendants with SIGKILL."""
        os.kill(self.pid, signal.SIGSTOP)  # otherwise it restarts the killed processes
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        below = [Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in children]
        for pid in [*children, *(child for some in below for child in some), str(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.http.close()
        if self._process is not None:
            self._process.wait(60)
            self._reader.join(10)
            self._process = None

    def remove_containers(self) -> None:
        """Remove the containers that outlived the node, which a restarted node would adopt."""
        label = f"label=mao.installation={(self.data_dir / 'installation').read_text().strip()}"
        listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True)
        if listed.stdout.split():
            subprocess.run(["docker", "rm", "-f", *listed.stdout.split()], capture_output=True, check=True)

    def pid_of(self, service: str) -> int:
        """Return the current pid of a service or of etcd; raises LookupError if it does not run."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        wanted = "etcd" if service in ("etcd", "federation-etcd") else f"mao_{service}"
        for pid in map(int, children.split()):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            of_federation = any(word.startswith("--config-file=") for word in argv)
            if (wanted in argv[:3] or wanted in argv[-2:]) and of_federation == (
                service == "federation-etcd"
            ):
                return pid
        raise LookupError(f"{service} does not run: {children}")

    def kill(self, service: str) -> None:
        """Kill one process with SIGKILL; the supervisor restarts it."""
        os.kill(self.pid_of(service), signal.SIGKILL)

    def wait_ready(self, timeout: float = START_LIMIT) -> None:
        """Wait until every service answers, by `maoctl doctor --wait` so that it is tested as well."""
        self.maoctl("doctor", "--wait", f"--timeout={timeout:.0f}s")

    def run_after(self, schedule_id: str, moment: datetime, timeout: float = 60) -> dict[str, Any]:
        """Wait on the event stream for a schedule's first run with a tick after `moment`, and return it."""
        with self.http.stream("GET", "/events", timeout=timeout) as answer:
            for line in answer.iter_lines():
                run = json.loads(line[5:]) if line.startswith("data:") else {}
                if (
                    run.get("schedule") == schedule_id
                    and datetime.fromisoformat(run["scheduled_for"]) > moment
                ):
                    return dict(run)
        raise TimeoutError(schedule_id)

    def maoctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the client against this node; raises AssertionError on failure if `check`."""
        done = subprocess.run(
            [sys.executable, "-m", "maoctl", *args],
            env={**self.env, "MAO_URL": self.url},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"maoctl {' '.join(args)} → {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def wait_until_gone(self, run_id: str, timeout: float = 60) -> None:
        """Wait until the engine reports that the run's container is removed; raises TimeoutError."""
        watch = ["docker", "events", "--filter", f"label=mao.run={run_id}", "--filter", "event=destroy"]
        with subprocess.Popen([*watch, "--since", "24h"], stdout=subprocess.PIPE, text=True) as events:
            killer = threading.Timer(timeout, events.kill)
            killer.start()
            assert events.stdout is not None
            said = events.stdout.readline()
            killer.cancel()
            events.kill()
        if not said:
            raise TimeoutError(f"the container of {run_id} was not removed in {timeout:.0f} s")

    def wait_run(self, run_id: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Return the run once it has ended, or once `until` first holds."""
        return follow_run(self.http, run_id, until)


def follow_run(
    http: httpx.Client, run_id: str, until: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """Follow a run's events until it has ended or `until` first holds, and return its last state."""
    last: dict[str, Any] = {}
    with http.stream("GET", f"/runs/{run_id}/events", timeout=120) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data:"):
                continue
            last = json.loads(line[5:])
            if until is not None and until(last):
                break
    return last


@contextlib.contextmanager
def native_node(root: Path, **options: Any) -> Iterator[NativeNode]:
    """Start a node for the block and stop it at the end; print its log when the block fails."""
    node = NativeNode(root, **options)
    try:
        yield node.start()
    except BaseException:
        print("\n".join(node.log[-200:]))
        raise
    finally:
        node.stop()
        node.remove_containers()
