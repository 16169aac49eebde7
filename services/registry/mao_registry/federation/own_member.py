"""Pure: the configuration file of the federation's etcd on this node (etcd's own `--config-file`)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a core node's etcd listens: `address` is how other nodes reach it, `bind` what it listens on."""

    address: str
    port: int
    peer_port: int
    bind: str | None = None

    @property
    def client(self) -> str:
        return f"{_bracketed(self.address)}:{self.port}"

    @property
    def peer(self) -> str:
        return f"{_bracketed(self.address)}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        return f"https://{self.peer}"

    def listens_on(self) -> str:
        """All interfaces unless told otherwise; a node reached by a loopback address does not leave it."""
        if self.bind:
            return _bracketed(self.bind)
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            loopback = self.address == "localhost"
        if not loopback:
            return "0.0.0.0"  # noqa: S104 (only certificates of the federation get in)
        return "127.0.0.1" if self.address == "localhost" else _bracketed(self.address)


@dataclass(frozen=True, slots=True)
class Pem:
    """Files of one TLS identity."""

    ca: Path
    certificate: Path
    key: Path


def etcd_config(
    node: str,
    place: Place,
    *,
    data_dir: Path,
    token: str,
    cluster: Mapping[str, str],
    existing: bool,
    server: Pem,
    peer: Pem,
) -> str:
    """JSON, which is YAML. `cluster`: name → peer URL of all members, this one among them.

    Members trust each other by an authority of their own: who has only a certificate for clients cannot
    speak etcd's inner protocol, which knows no users. The gRPC gateway is off, since it would act under the
    server's own name.
    """
    bind = place.listens_on()
    settings = {
        "name": node,
        "data-dir": str(data_dir),
        "listen-client-urls": f"https://{bind}:{place.port}",
        "advertise-client-urls": f"https://{place.client}",
        "listen-peer-urls": f"https://{bind}:{place.peer_port}",
        "initial-advertise-peer-urls": place.peer_url,
        "initial-cluster": ",".join(f"{name}={url}" for name, url in sorted(cluster.items())),
        "initial-cluster-state": "existing" if existing else "new",
        "initial-cluster-token": token,
        "client-transport-security": _security(server),
        "peer-transport-security": _security(peer),
        "enable-grpc-gateway": False,
        "strict-reconfig-check": True,
        "pre-vote": True,  # a node whose link comes back does not disturb the leader
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        "logger": "zap",
        "log-level": "error",  # a member that is away is told of by `maoctl doctor`, not every five seconds
    }
    return json.dumps(settings, indent=1) + "\n"


def _security(pem: Pem) -> dict[str, object]:
    return {
        "cert-file": str(pem.certificate),
        "key-file": str(pem.key),
        "trusted-ca-file": str(pem.ca),
        "client-cert-auth": True,
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
