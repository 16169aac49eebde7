"""A node under Docker Compose for tests: `scripts/compose.sh up` as a project of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from .node import REPO, follow_run
from .ports import free_ports

START_LIMIT = 900  # seconds; images are built on the way


class ComposeNode:
    """`start` builds and starts, `stop` removes containers, network and volumes."""

    def __init__(self, ssh_dir: Path, name: str = "compose-node", **env: str) -> None:
        self.name = name
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

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each service's container."""
        mine = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}"]
        ids = subprocess.run(mine, capture_output=True, text=True, check=True).stdout.split()
        printed = subprocess.run(
            ["docker", "inspect", *ids], capture_output=True, text=True, check=True
        ).stdout
        return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in json.loads(printed)}

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
