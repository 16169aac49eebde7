"""Nodes under Docker Compose, one project each, started by `make up` or by plain compose commands."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from .node import REPO, follow_run
from .ports import free_ports
from .waiting import eventually

START_LIMIT = 900  # seconds; images are built on the way


class ComposeNode:
    """A node that `start` builds and starts, and `stop` removes with its network and volumes."""

    def __init__(self, ssh_dir: Path, name: str = "compose-node", **env: str) -> None:
        self.name = name
        self.ssh_dir = ssh_dir
        self.port = free_ports(3)
        self.project = f"mao-test-{secrets.token_hex(4)}"
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "MAO_GATEWAY_PORT": str(self.port),
            "MAO_NODE": name,
            "MAO_FEDERATION_ADDRESS": "federation-etcd",  # as the services of this project reach it
            "MAO_FEDERATION_PORT": str(self.port + 1),
            "MAO_FEDERATION_PEER_PORT": str(self.port + 2),
            "MAO_SSH_DIR": str(ssh_dir),
            **env,
        }
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ComposeNode:
        self._compose("up")
        return self

    def stop(self) -> None:
        self.http.close()
        self._compose("down", "--volumes")

    def _compose(self, *args: str) -> None:
        done = subprocess.run(
            [str(REPO / "scripts/compose.sh"), *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=START_LIMIT,
        )
        assert done.returncode == 0, f"compose.sh {' '.join(args)}\n{done.stdout}{done.stderr}"

    @property
    def etcd(self) -> str:
        """The node's etcd endpoint in the form of MAO_ETCD_ENDPOINTS; only root can connect."""
        return f"unix://{self.host_path('/run/mao/localhost:2379')}"

    def logs(self, service: str) -> str:
        """Return the output of a service's container."""
        container = self.containers()[service]["Id"]
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the `docker inspect` document of each service's container, by service."""
        mine = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}"]
        ids = subprocess.run(mine, capture_output=True, text=True, check=True).stdout.split()
        printed = subprocess.run(
            ["docker", "inspect", *ids], capture_output=True, text=True, check=True
        ).stdout
        return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in json.loads(printed)}

    def running(self) -> dict[str, dict[str, Any]]:
        """Return the containers that are running, by service."""
        return {name: item for name, item in self.containers().items() if item["State"]["Running"]}

    def host_path(self, path: str) -> Path:
        """Return the path on this machine of a path in the data volume."""
        for mount in self.containers()["datamgmt"]["Mounts"]:
            if path.startswith(mount["Destination"]):
                return Path(mount["Source"]) / Path(path).relative_to(mount["Destination"])
        raise LookupError(path)

    def maoctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "maoctl", *args],
            env={**self.env, "MAO_URL": self.url},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"maoctl {' '.join(args)}\n{done.stdout}{done.stderr}"
        return done

    def wait_run(self, run_id: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Return the run once it has ended, or once `until` first holds."""
        return follow_run(self.http, run_id, until)


class SeedNode(ComposeNode):
    """A node started by plain compose commands in its own checkout, configured only by `.env`.

    `place` is an empty folder for the checkout and the data directory; `settings` go into `.env`.
    """

    def __init__(self, place: Path, ssh_dir: Path, **settings: str) -> None:
        super().__init__(ssh_dir, "zurich")
        self.checkout, self.data = place / "mao-orchestrator", place / "data"
        copy_checkout(self.checkout)
        ours = {name: self.env.pop(name) for name in list(self.env) if name in _ISOLATING}
        self.env = {name: value for name, value in self.env.items() if name not in _SET_BY_MAKE_UP}
        self.env |= base_images()
        seed = {"workuser": self.name, "hostdir": str(self.data), "MAO_SSH_DIR": str(ssh_dir)}
        self.write_env({**ours, **seed, **settings})

    def write_env(self, settings: dict[str, str]) -> None:
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (self.checkout / ".env").write_text("".join(lines))

    def start(self) -> SeedNode:
        """Run `docker compose build` and `up`, and wait until the gateway is ready."""
        self.compose("build", "--quiet")
        self.compose("up", "--detach")
        asyncio.run(eventually(self.ready, START_LIMIT))
        return self

    def ready(self) -> bool:
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def _compose(self, *args: str) -> None:
        self.compose(*args)

    def compose(self, *args: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a compose command in the checkout."""
        return self._run([*compose_command(), *args], self.checkout, fails)

    def maoctl(self, *args: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the client in the checkout, or through the script when `folder` is given."""
        words = ["run", "--rm", "-T", "maoctl", *args]
        if folder is None:
            return self.compose(*words)
        return self._run([str(self.checkout / "scripts/compose.sh"), *words], folder)

    def _run(self, words: list[str], folder: Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        env = {**self.env, "PWD": str(folder)}
        done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=START_LIMIT)
        assert fails or done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done


_ISOLATING = ("COMPOSE_PROJECT_NAME", "MAO_GATEWAY_PORT", "MAO_FEDERATION_PORT", "MAO_FEDERATION_PEER_PORT")
_SET_BY_MAKE_UP = ("MAO_NODE", "MAO_SSH_DIR", "MAO_FEDERATION_ADDRESS")


def copy_checkout(target: Path) -> None:
    """Copy the tracked and the new, not ignored files of this checkout."""
    listed = subprocess.run(
        ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (source := REPO / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def compose_command() -> list[str]:
    return _machine("compose").split()


def base_images() -> dict[str, str]:
    """Return the build arguments with which images are built without a registry."""
    return dict(line.split("=", 1) for line in _machine("base-images").splitlines())


def _machine(verb: str) -> str:
    script = [str(REPO / "scripts/machine.sh"), verb]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout
