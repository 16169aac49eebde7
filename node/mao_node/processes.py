"""The processes of a node, by its settings, in the order of their start. Pure."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mao_shared.settings import SERVICES

from .preflight import socket_dir
from .settings import NodeSettings

ETCD_PORT_OFFSET = 7  # from the gateway's port to that of the federation's etcd
FEDERATION_ETCD = "federation-etcd"
ETCD_CLIENT, ETCD_PEER = "localhost:2379", "localhost:2380"
"""For `unix://HOST:PORT`, etcd creates a socket with this name in its working directory."""
TOKEN_FILE = "gateway.token"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """The specification of a process.

    Attributes:
        ports: ports that it listens on.
        env: its complete environment.
        module: the Python module that `argv` runs, which can be forked instead (fork_server.py).
        config: it runs only while this file exists, and is restarted when the file changes.
        cwd: its working directory.
        sockets: paths of unix sockets that it creates; leftovers are removed before it starts.
    """

    name: str
    argv: list[str]
    ports: list[int]
    env: Mapping[str, str] = field(default_factory=dict)
    module: str | None = None
    config: Path | None = None
    cwd: Path | None = None
    sockets: list[Path] = field(default_factory=list)


def node_processes(settings: NodeSettings, environ: Mapping[str, str]) -> list[ProcessSpec]:
    """Return etcd (unless MAO_ETCD_ENDPOINTS is set), the federation's etcd, the services, and the gateway.

    They reach each other over sockets in `socket_dir`; only the gateway and the federation's etcd have ports.
    The latter's are in the file that the registry writes when this node becomes a core node.
    """
    folder = socket_dir(settings.data_dir.absolute())
    specs = [] if settings.etcd_endpoints else [_etcd(settings, folder, environ)]
    config = federation_dir(settings) / "etcd.yaml"
    argv = [settings.etcd, f"--config-file={config}"]
    specs.append(ProcessSpec(FEDERATION_ETCD, argv, [], dict(environ), config=config))
    env = _environment(settings, folder, environ)
    for name in SERVICES:
        path, module = folder / f"{name}.sock", f"mao_{name}"
        own = {**env, "MAO_SOCKET": str(path)}
        specs.append(ProcessSpec(name, [sys.executable, "-m", module], [], own, module, sockets=[path]))
    own = {
        **env,
        "MAO_HOST": settings.gateway_host,
        "MAO_PORT": str(settings.gateway_port),
        "MAO_GATEWAY_TOKEN_FILE": str(settings.data_dir / TOKEN_FILE),
    }
    argv = [sys.executable, "-m", "mao_gateway"]
    specs.append(ProcessSpec("gateway", argv, [settings.gateway_port], own, "mao_gateway"))
    return specs


def _etcd(settings: NodeSettings, folder: Path, environ: Mapping[str, str]) -> ProcessSpec:
    """Return the node's etcd. Its peer URL, which older data may have with TCP, is never used."""
    client_url, peer_url = f"unix://{ETCD_CLIENT}", f"unix://{ETCD_PEER}"
    program = os.path.abspath(settings.etcd) if os.sep in settings.etcd else settings.etcd  # noqa: PTH100
    argv = [
        program,  # an absolute path, since the working directory is another one
        f"--name={settings.node}",
        f"--data-dir={settings.data_dir.absolute() / 'etcd'}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={settings.node}={peer_url}",
        "--enable-grpc-gateway=false",  # JSON over HTTP, which web pages could use
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--logger=zap",
        "--log-level=error",  # its warnings are about settings that are irrelevant here
    ]
    sockets = [folder / ETCD_CLIENT, folder / ETCD_PEER]
    return ProcessSpec("etcd", argv, [], dict(environ), cwd=folder, sockets=sockets)


def federation_dir(settings: NodeSettings) -> Path:
    return (settings.federation_dir or settings.data_dir / "federation").resolve()


def _environment(settings: NodeSettings, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that all services share."""
    env = {
        **{name: value for name, value in environ.items() if name != "MAO_SOCKET"},
        "MAO_NODE": settings.node,
        "MAO_DATA_DIR": str(settings.data_dir),
        "MAO_ETCD_ENDPOINTS": settings.etcd_endpoints or f"unix://{folder / ETCD_CLIENT}",
        "MAO_FEDERATION_DIR": str(federation_dir(settings)),
        "MAO_FEDERATION_PORT": str(settings.federation_port or settings.gateway_port + ETCD_PORT_OFFSET),
        "MAO_SUPERVISOR": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    return env | {f"MAO_{name.upper()}_URL": f"unix://{folder / name}.sock" for name in SERVICES}


def end_with_parent() -> list[str]:
    """Return a command prefix that ends the process when this one is killed, so that its ports are freed."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
