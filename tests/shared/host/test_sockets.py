"""Identification of a connection's peer by the kernel's socket tables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mao_shared.host import sockets
from mao_shared.host.sockets import Address, TcpSocket, find_socket, listening_uids
from tests.support.users import NOBODY, as_user, needs_root

V4, V6 = socket.AF_INET, socket.AF_INET6
KINDS = {
    "IPv4": (V4, "127.0.0.1", V4, "127.0.0.1"),
    "another loopback address": (V4, "127.0.0.1", V4, "127.0.0.1"),
    "IPv6": (V6, "::1", V6, "::1"),
    "IPv4 calls a server of both": (V6, "::", V4, "127.0.0.1"),
    "IPv6 calls a server of both": (V6, "::", V6, "::1"),
    "IPv4 in IPv6 calls an IPv4 server": (V4, "127.0.0.1", V6, "::ffff:127.0.0.1"),
}


@contextmanager
def connection(kind: str = "IPv4") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the caller's end and the server's end of a connection."""
    server_family, bound, caller_family, called = KINDS[kind]
    with socket.socket(server_family) as server, socket.socket(caller_family) as caller:
        if server_family == V6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((bound, 0))
        server.listen()
        if kind.startswith("another"):
            caller.bind(("127.8.9.10", 0))
        caller.connect((called, server.getsockname()[1]))
        accepted, _ = server.accept()
        with accepted:
            yield caller, accepted


def seen(accepted: socket.socket) -> tuple[Address, Address]:
    """Return the caller's and the server's addresses as the server sees them."""
    caller, called = accepted.getpeername(), accepted.getsockname()
    return (caller[0], caller[1]), (called[0], called[1])


@pytest.fixture(params=["sock_diag", "proc"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select one of the two ways to query the kernel, which give the same answers."""
    sockets._kernel_answers.cache_clear()
    if request.param == "proc":
        monkeypatch.setattr(sockets, "_kernel_answers", lambda: False)
    return str(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_socket_of_callers_socket_is_found(asked: str, kind: str) -> None:
    with connection(kind) as (caller, accepted):
        found = find_socket(*seen(accepted))
        assert found is not None
        assert (found.uid, found.inode) == (os.geteuid(), os.fstat(caller.fileno()).st_ino)
        assert bool(found.cookie) == (asked == "sock_diag")


@needs_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_socket_of_another_users_socket_is_theirs(asked: str, host: str) -> None:
    calls = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(1)"
    with socket.create_server(("::", 0), family=V6, dualstack_ipv6=True) as server:
        port = str(server.getsockname()[1])
        with subprocess.Popen(as_user(NOBODY, sys.executable, "-c", calls, host, port)) as process:
            accepted, _ = server.accept()
            with accepted:
                found = find_socket(*seen(accepted))
                accepted.sendall(b".")
            assert process.wait(20) == 0
    assert found is not None
    assert found.uid == NOBODY


@pytest.mark.parametrize("end", ["close", "shutdown and close"])
def test_socket_of_orphaned_socket_is_not_found(asked: str, end: str) -> None:
    """The kernel reports such sockets as owned by root, in lines like those of root's own."""
    with connection() as (caller, accepted):
        ends = seen(accepted)
        if end.startswith("shutdown"):
            caller.shutdown(socket.SHUT_WR)
            assert find_socket(*ends) is not None  # it still reads
        caller.close()
        assert find_socket(*ends) is None


def test_socket_of_what_is_not_connected_is_not_found(asked: str) -> None:
    with connection() as (_, accepted):
        own, other = seen(accepted)
        assert find_socket(other, own) is not None  # the server's own end is another socket
        assert find_socket(own, (other[0], 1)) is None
        assert find_socket(("127.0.0.2", own[1]), other) is None
        assert find_socket(("not an address", 1), other) is None
        assert find_socket(("::1", own[1]), ("::1", other[1])) is None


def test_socket_of_ignores_listener_on_same_port(asked: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, connection() as (_, accepted):
        _, called = seen(accepted)
        assert find_socket(("127.0.0.1", listener.getsockname()[1]), called) is None


def test_socket_of_among_many_connections_each_is_told_apart(asked: str) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        callers, found = [], []
        for _ in range(200):
            callers.append(stack.enter_context(socket.create_connection(server.getsockname())))
            found.append(find_socket(*seen(stack.enter_context(server.accept()[0]))))
        assert [peer.inode for peer in found if peer] == [os.fstat(c.fileno()).st_ino for c in callers]
        assert len(set(found)) == 200


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", V4), ("0.0.0.0", V4), ("::1", V6), ("::", V6)])
def test_socket_of_who_listens(host: str, family: socket.AddressFamily) -> None:
    with socket.socket(family) as server:
        server.bind((host, 0))
        port = server.getsockname()[1]
        assert listening_uids(port) == set()  # bound, but nobody can call it
        server.listen()
        assert listening_uids(port) == {os.geteuid()}
    assert listening_uids(port) == set()


def test_socket_of_kernel_without_sock_diag_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> TcpSocket | None:
        raise PermissionError(1, "not permitted")

    ask: Callable[..., TcpSocket | None] = refuses
    for ask in (refuses, lambda *_: None):
        monkeypatch.setattr(sockets, "_by_netlink", ask)
        sockets._kernel_answers.cache_clear()
        with connection() as (caller, accepted):
            found = find_socket(*seen(accepted))
            assert found is not None
            assert found.inode == os.fstat(caller.fileno()).st_ino
    monkeypatch.undo()
    sockets._kernel_answers.cache_clear()
