"""Nodes under Docker Compose for tests, each a project of its own: by `make up`, or by compose alone."""

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
    """`start` builds and starts, `stop` removes containers, network and volumes."""

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
        """Its etcd, as MAO_ETCD_ENDPOINTS has it; for root."""
        return f"unix://{self.host_path('/run/mao/localhost:2379')}"

    def logs(self, service: str) -> str:
        """What a service's container has printed."""
        container = self.containers()[service]["Id"]
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each service's container."""
        mine = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}"]
        ids = subprocess.run(mine, capture_output=True, text=True, check=True).stdout.split()
        printed = subprocess.run(
            ["docker", "inspect", *ids], capture_output=True, text=True, check=True
        ).stdout
        return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in json.loads(printed)}

    def running(self) -> dict[str, dict[str, Any]]:
        """The containers of what does not end by itself."""
        return {name: item for name, item in self.containers().items() if item["State"]["Running"]}

    def host_path(self, path: str) -> Path:
        """Where a path of the data volume lies on this machine."""
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
        """The run when it has ended, or when `until` holds for the first time."""
        return follow_run(self.http, run_id, until)


class SeedNode(ComposeNode):
    """The seed's two commands in a checkout of its own, where nothing is set but by `.env`.

    `place`: an empty folder, for the checkout and the data directory. `settings` go into `.env`.
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
        """`docker compose build && docker compose up`, and then until the gateway is ready."""
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
        """A compose command as typed in the checkout."""
        return self._run([*compose_command(), *args], self.checkout, fails)

    def maoctl(self, *args: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The client, called in the checkout; or by the script, in a folder elsewhere."""
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
    """What git would clone of this checkout, with what is not committed yet."""
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
    """The build arguments by which images are built without a registry."""
    return dict(line.split("=", 1) for line in _machine("base-images").splitlines())


def _machine(verb: str) -> str:
    script = [str(REPO / "scripts/machine.sh"), verb]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout
