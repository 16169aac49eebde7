"""Several hosts on one machine: network namespaces on a bridge, whose links can be cut and joined.

`site.enter` runs a program at a site; `site.forward_port` makes a port of its loopback reachable.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .ports import claim

_NEW_NET = 0x40000000
NEEDED = "network namespaces need root, iproute2 and nsenter"


def can_make_sites() -> bool:
    """True if this user can create network namespaces."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nsenter") is not None


def at_sites(limit: float) -> list[pytest.MarkDecorator]:
    """Return the marks of tests with nodes at several sites; `limit` is the timeout in seconds."""
    real = [pytest.mark.docker, pytest.mark.etcd, pytest.mark.sshd]
    return [*real, pytest.mark.timeout(limit), pytest.mark.skipif(not can_make_sites(), reason=NEEDED)]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@dataclass
class Site:
    """One host: the name of its network namespace and its address on the bridge."""

    namespace: str
    address: str
    _forwards: list[PortForward] = field(default_factory=list)

    @property
    def enter(self) -> list[str]:
        """The command prefix that runs a program at this site, with the machine's files and cgroups."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def cut(self) -> None:
        """Take the site's link down."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def join(self) -> None:
        """Bring the site's link up again."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")

    def forward_port(self, port: int) -> None:
        """Make the site's `127.0.0.1:port` reachable as `127.0.0.1:port` here."""
        self._forwards.append(PortForward(self.namespace, port))

    def close(self) -> None:
        for forward in self._forwards:
            forward.close()
        self._forwards.clear()


class PortForward:
    """Forward a loopback port to the same port of a namespace's loopback."""

    def __init__(self, namespace: str, port: int) -> None:
        self._namespace, self._port = namespace, port
        self._inside = concurrent.futures.ThreadPoolExecutor(1, "inside", self._move)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _move(self) -> None:
        """Move the calling thread into the namespace; the sockets it creates stay there."""
        with Path(f"/run/netns/{self._namespace}").open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _NEW_NET):
                raise OSError(ctypes.get_errno(), "setns")

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = self._inside.submit(
                    socket.create_connection, ("127.0.0.1", self._port), timeout=5
                ).result()
            except (OSError, RuntimeError):
                near.close()
                continue
            far.settimeout(None)
            threading.Thread(target=_pump_both, args=(near, far), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._inside.shutdown(wait=False)


def _pump_both(near: socket.socket, far: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(far, near), daemon=True)
    back.start()
    _pump(near, far)
    back.join()
    near.close()
    far.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@dataclass
class Sites:
    """Sites on one bridge; `here` is this machine's address on it."""

    here: str
    sites: list[Site]


@contextlib.contextmanager
def make_sites(count: int) -> Iterator[Sites]:
    """Create `count` sites on one bridge for the block.

    The bridge is in its own namespace, since the machine's firewall may drop forwarded packets, as Docker's
    rules do.
    """
    mark, net = secrets.token_hex(4), _free_net()
    hub, names = f"mao-{mark}-hub", [f"mao-{mark}-{i}" for i in range(count)]
    sites = Sites(f"{net}.1", [Site(name, f"{net}.{11 + i}") for i, name in enumerate(names)])
    try:
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        _ip("link", "add", f"mh{mark}", "type", "veth", "peer", "name", "here", "netns", hub)
        _ip("-n", hub, "link", "set", "here", "master", "bridge", "up")
        _ip("address", "add", f"{sites.here}/24", "dev", f"mh{mark}")
        _ip("link", "set", f"mh{mark}", "up")
        for i, site in enumerate(sites.sites):
            _make_site(site, hub, f"site{i}")
        yield sites
    finally:
        for site in sites.sites:
            site.close()
        for name in [*names, hub]:
            with contextlib.suppress(RuntimeError):
                _ip("netns", "delete", name)
        with contextlib.suppress(RuntimeError):
            _ip("link", "delete", f"mh{mark}")


def _free_net() -> str:
    """Return the first three octets of a network that no other test on this machine uses."""
    while not claim(net := f"10.{70 + secrets.randbelow(100)}.{secrets.randbelow(250)}"):
        pass
    return net


def _make_site(site: Site, hub: str, link: str) -> None:
    _ip("netns", "add", site.namespace)
    _ip("-n", hub, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", site.namespace)
    _ip("-n", hub, "link", "set", link, "master", "bridge", "up")
    _ip("-n", site.namespace, "link", "set", "lo", "up")
    _ip("-n", site.namespace, "address", "add", f"{site.address}/24", "dev", "eth0")
    _ip("-n", site.namespace, "link", "set", "eth0", "up")
