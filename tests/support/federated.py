"""Native nodes in one federation, each in its own network namespace, with git over a shared sshd."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .git import bare_repository, git
from .node import NativeNode
from .sites import Site, make_sites
from .sshd import SshServer, ssh_server

LIMIT = 90.0  # seconds


class SiteNode(NativeNode):
    """A native node at a site; `maoctl` and `http` reach it from outside the site."""

    def __init__(self, root: Path, name: str, site: Site, env: dict[str, str]) -> None:
        super().__init__(root, name, {**env, "MAO_FEDERATION_ADDRESS": site.address}, site.enter)
        self.site = site
        site.forward_port(self.port)

    def federation_pid(self) -> int:
        """Return the pid of the federation's etcd on this node; raises LookupError if none runs."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        for pid in map(int, children.split()):
            if b"--config-file" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise LookupError(f"{self.name} runs no etcd for the federation")

    def kill_federation(self) -> None:
        """Kill the federation's etcd on this node with SIGKILL; the supervisor restarts it."""
        os.kill(self.federation_pid(), signal.SIGKILL)

    def freeze_federation(self) -> None:
        """Stop the federation's etcd on this node with SIGSTOP until it is thawed."""
        os.kill(self.federation_pid(), signal.SIGSTOP)

    def thaw_federation(self) -> None:
        os.kill(self.federation_pid(), signal.SIGCONT)

    def leads_federation(self) -> bool:
        """True if the federation's etcd on this node leads its cluster."""
        folder = self.data_dir / "federation"
        files = [f"--cacert={folder}/ca.pem", f"--cert={folder}/client.pem", f"--key={folder}/client.pem"]
        where = self.ask("federation", "show")["endpoints"]
        mine = next(endpoint for endpoint in where if endpoint.startswith(f"{self.site.address}:"))
        done = subprocess.run(
            ["etcdctl", *files, f"--endpoints=https://{mine}", "endpoint", "status", "--write-out=json"],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            check=True,
        )
        status = json.loads(done.stdout)[0]["Status"]
        return bool(status["leader"] == status["header"]["member_id"])

    def ask(self, *args: str) -> Any:
        """Return the parsed output of `maoctl … -o json`."""
        return json.loads(self.maoctl(*args, "-o", "json").stdout)


@dataclass
class Lab:
    """Started nodes that have not joined a federation yet."""

    nodes: list[SiteNode]
    sshd: SshServer
    root: Path

    def remote(self, name: str) -> tuple[Path, str]:
        """Create a bare repository; return its path here and its URL for the nodes."""
        path = bare_repository(self.root / f"{name}.git")
        return path, self.sshd.url(path)

    def federate(self, core: int = 1) -> None:
        """Create a federation on the first node, join the others, and have `core` nodes run its etcd."""
        first, *others = self.nodes
        first.maoctl("federation", "create", "lab")
        for node in others:
            token = first.maoctl("federation", "invite", node.name).stdout.strip()
            node.maoctl("federation", "join", token)
        for node in others[: core - 1]:
            first.maoctl("federation", "promote", node.name)


@contextlib.contextmanager
def lab(root: Path, names: Sequence[str] = ("alpha", "beta", "gamma"), **env: str) -> Iterator[Lab]:
    """Start nodes with these names; stop and remove them when the block ends."""
    with make_sites(len(names)) as sites, ssh_server(root / "sshd", sites.here) as sshd:
        environment = {"MAO_SSH_DIR": str(sshd.key_dir), **env}
        nodes = [SiteNode(root, n, site, environment) for n, site in zip(names, sites.sites, strict=True)]
        try:
            run_on_all(SiteNode.start, nodes)
            yield Lab(nodes, sshd, root)
        except BaseException:
            for node in nodes:
                print(f"===== {node.name}", *node.log[-120:], sep="\n")
            raise
        finally:
            run_on_all(_clear_away, nodes)


def _clear_away(node: SiteNode) -> None:
    node.site.join()
    node.stop()
    node.remove_containers()


def run_on_all(work: Callable[[SiteNode], object], nodes: Sequence[SiteNode]) -> None:
    """Do the work for all nodes concurrently; raise the first failure once all have ended."""
    with ThreadPoolExecutor(len(nodes)) as threads:
        ended = [threads.submit(work, node) for node in nodes]
    for future in ended:
        future.result()


def until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait until `condition` returns a true value and return it; polls every half second."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:.0f} s: {what}")
        time.sleep(0.5)
    return found


def ground_truth(remote: Path) -> list[str]:
    """Return the ground-truth commits made by rounds, oldest first."""
    if not git(remote, "branch", "--list", "ground-truth"):
        return []
    listed = git(remote, "log", "--reverse", "--format=%H", "ground-truth", "--", ".mao/rounds")
    return listed.split()


def evidence(remote: Path) -> dict[str, dict[str, Any]]:
    """Return the evidence in ground truth, by round id."""
    names = git(remote, "ls-tree", "--name-only", "ground-truth", ".mao/rounds/").split()
    found = [name for name in names if name.endswith(".json")]
    return {Path(n).stem: json.loads(git(remote, "show", f"ground-truth:{n}")) for n in found}
