"""Pure: settings → the processes of a node, in the order they start (they stop in the reverse order)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mao_shared.settings import SERVICES

from .settings import NodeSettings

ETCD_CLIENT, ETCD_PEER, FEDERATION = 5, 6, 7  # offsets from the gateway's port
FEDERATION_ETCD = "federation-etcd"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: `env` is its whole environment, `ports` are those it listens on.

    `module`: where `argv` only runs this Python module, it may be forked instead (forks.py).
    `config`: it runs only while this file exists, and anew when that has changed (optional.py).
    """

    name: str
    argv: list[str]
    ports: list[int]
    env: Mapping[str, str] = field(default_factory=dict)
    module: str | None = None
    config: Path | None = None


def node_processes(settings: NodeSettings, environ: Mapping[str, str]) -> list[ProcessSpec]:
    """etcd (unless one is given), the federation's etcd, the four services, and the gateway last."""
    own_etcd = [] if settings.etcd_endpoints else [_etcd(settings, environ)]
    own_etcd.append(_federation_etcd(settings, environ))
    services = [_service(name, i + 1, settings, environ) for i, name in enumerate(SERVICES)]
    return [*own_etcd, *services, _service("gateway", 0, settings, environ)]


def _etcd(settings: NodeSettings, environ: Mapping[str, str]) -> ProcessSpec:
    client, peer = settings.port(ETCD_CLIENT), settings.port(ETCD_PEER)
    client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    argv = [
        settings.etcd,
        f"--name={settings.node}",
        f"--data-dir={settings.data_dir / 'etcd'}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={settings.node}={peer_url}",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--logger=zap",
        "--log-level=error",  # its warnings are about settings that do not matter on loopback
    ]
    return ProcessSpec("etcd", argv, [client, peer], dict(environ))


def federation_dir(settings: NodeSettings) -> Path:
    return (settings.federation_dir or settings.data_dir / "federation").resolve()


def _federation_etcd(settings: NodeSettings, environ: Mapping[str, str]) -> ProcessSpec:
    """Its ports are in the file that the registry writes when this node becomes a core node."""
    config = federation_dir(settings) / "etcd.yaml"
    return ProcessSpec(
        FEDERATION_ETCD, [settings.etcd, f"--config-file={config}"], [], dict(environ), config=config
    )


def _service(name: str, offset: int, settings: NodeSettings, environ: Mapping[str, str]) -> ProcessSpec:
    port = settings.port(offset)
    env = {
        **environ,
        "MAO_NODE": settings.node,
        "MAO_DATA_DIR": str(settings.data_dir),
        "MAO_HOST": settings.gateway_host if name == "gateway" else "127.0.0.1",
        "MAO_PORT": str(port),
        "MAO_ETCD_ENDPOINTS": settings.etcd_endpoints or f"127.0.0.1:{settings.port(ETCD_CLIENT)}",
        "MAO_FEDERATION_DIR": str(federation_dir(settings)),
        "MAO_FEDERATION_PORT": str(settings.federation_port or settings.port(FEDERATION)),
        "MAO_SUPERVISOR": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    for i, other in enumerate(SERVICES):
        env[f"MAO_{other.upper()}_URL"] = f"http://127.0.0.1:{settings.port(i + 1)}"
    module = f"mao_{name}"
    return ProcessSpec(name, [sys.executable, "-m", module], [port], env, module)


def dies_with_us() -> list[str]:
    """A prefix that ends the process when this one is killed, so that no orphan holds the ports."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
