"""Listening sockets, the user at the other end of a loopback connection, and the allowed local users.

The owner of a socket is looked up with sock_diag(7), by the addresses and ports of the connection, or if that
is not available in /proc/net/tcp and tcp6. Both see only the network namespace of this process.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mao_shared.errors import Conflict, InvalidInput

LOOPBACK = ("127.0.0.1", "::1")
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # a machine without IPv6


def loopback_listeners(port: int) -> list[socket.socket]:
    """Listen on a port of loopback, by IPv4 and, if available, IPv6.

    `localhost` may resolve to either. Another user's program on the free address could impersonate this one,
    and its pages would have the same origin for a browser. Raises Conflict (`port-taken`).
    """
    listeners: list[socket.socket] = []
    for host in LOOPBACK:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listeners.append(socket.create_server((host, port), family=family))
        except OSError as error:
            if listeners and error.errno in _NO_SUCH_ADDRESS:
                continue
            for listener in listeners:
                listener.close()
            raise Conflict(
                f"Cannot listen on port {port} of {host}: {error.strerror}.",
                code="port-taken",
                next=f"See what uses it: ss -lntp 'sport = :{port}'. Or set MAO_GATEWAY_PORT=8180.",
            ) from error
    return listeners


def unix_listener(path: Path) -> socket.socket:
    """Return a listening socket at `path` for this user and root only; replaces a stale one.

    Raises OSError, for example if the folder does not exist.
    """
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


Address = tuple[str, int]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, pad, states; then the id
_ID = struct.Struct("!HH16s16s")  # ports and addresses of the local and the remote end
_ANSWER = struct.Struct("=BBBB")  # family, state, timer, retransmits; then the id
_REST = struct.Struct("=IIIII")  # expires, read queue, write queue, uid, inode
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface and cookie
_ALL_STATES = 0xFFFFFFFF
_LISTEN = 0x0A


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A TCP socket. `uid`: its creator; `cookie`: the kernel's unique number for it, 0: unknown."""

    uid: int
    inode: int
    cookie: int = 0


def find_socket(own: Address, other: Address) -> TcpSocket | None:
    """Return the socket with local address `own` and remote address `other`, or None.

    Returns None for a socket that its process has closed, since the kernel then reports root or nobody.
    """
    try:
        local, remote = _ip(own[0]), _ip(other[0])
    except ValueError:
        return None
    ends = (local, own[1]), (remote, other[1])
    if _kernel_answers():
        found = _by_netlink(*ends)
    else:
        found = next((line.socket for line in _proc_lines() if (line.own, line.other) == ends), None)
    return found if found is not None and found.inode != 0 else None


@functools.cache
def _kernel_answers() -> bool:
    """Return True if sock_diag finds an existing connection; without its TCP module it finds none."""
    if not hasattr(socket, "AF_NETLINK"):  # not Linux: all callers need a token
        return False
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as caller,
    ):
        own, other = caller.getsockname(), server.getsockname()
        try:
            return _by_netlink((_ip(own[0]), own[1]), (_ip(other[0]), other[1])) is not None
        except OSError:
            return False


def listening_uids(port: int) -> set[int]:
    """Return the uids of all listeners on this port of a loopback or unspecified address."""
    listening = (line for line in _proc_lines() if line.state == _LISTEN and line.own[1] == port)
    return {line.socket.uid for line in listening if line.own[0].is_loopback or line.own[0].is_unspecified}


@functools.lru_cache(maxsize=64)  # mostly a few loopback addresses
def _ip(text: str) -> IpAddress:
    """Parse an address; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    return _plain(ipaddress.ip_address(text.partition("%")[0]))


def _plain(address: IpAddress) -> IpAddress:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _by_netlink(own: tuple[IpAddress, int], other: tuple[IpAddress, int]) -> TcpSocket | None:
    """Find a socket by sock_diag(7); raises OSError if the kernel does not support it."""
    family = socket.AF_INET if own[0].version == 4 else socket.AF_INET6
    wanted = _ID.pack(own[1], other[1], own[0].packed.ljust(16, b"\0"), other[0].packed.ljust(16, b"\0"))
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + wanted + _ANY
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        sock.sendto(header + request, (0, 0))
        answer = sock.recv(4096, socket.MSG_DONTWAIT)  # the kernel answers during sendto
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code == -errno.ENOENT:
            return None
        raise OSError(-code, os.strerror(-code))
    at = _HEADER.size
    family, *_ = _ANSWER.unpack_from(answer, at)
    at += _ANSWER.size
    own_port, other_port, own_ip, other_ip = _ID.unpack_from(answer, at)
    at += _ID.size
    _, low, high = struct.unpack_from("=III", answer, at)
    *_, uid, inode = _REST.unpack_from(answer, at + 12)
    if (_unpack(family, own_ip), own_port) != own or (_unpack(family, other_ip), other_port) != other:
        return None  # without a connected socket, the kernel returns a listening one
    return TcpSocket(uid, inode, high << 32 | low)


def _unpack(family: int, packed: bytes) -> IpAddress:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(packed[:4])
    return _plain(ipaddress.IPv6Address(packed))


@dataclass(frozen=True, slots=True)
class _ProcEntry:
    own: tuple[IpAddress, int]
    other: tuple[IpAddress, int]
    state: int
    socket: TcpSocket


def _proc_lines() -> Iterator[_ProcEntry]:
    for name in ("tcp", "tcp6"):
        lines: list[str] = []
        with suppress(OSError):
            lines = Path(f"/proc/net/{name}").read_text("ascii").splitlines()[1:]
        for line in lines:
            words = line.split()
            own, other = _proc_address(words[1]), _proc_address(words[2])
            yield _ProcEntry(own, other, int(words[3], 16), TcpSocket(int(words[7]), int(words[9])))


def _proc_address(text: str) -> tuple[IpAddress, int]:
    """Parse `0100007F:1F90`: 32-bit words in native byte order, then the port."""
    words, _, port = text.partition(":")
    packed = b"".join(struct.pack("=I", int(words[i : i + 8], 16)) for i in range(0, len(words), 8))
    return _plain(ipaddress.ip_address(packed)), int(port, 16)


ROOT = 0


def allowed_users(names: str, owner_of: Path | None) -> frozenset[int]:
    """Return the uids of root, the node's user, and the users in `names` (user[,user…], by name or uid).

    The node's user is the owner of the file `owner_of` (under compose, where the process runs as a user of
    the image), otherwise this process's user. Raises InvalidInput (`local-users-invalid`) for an unknown
    user.
    """
    try:
        runs_it = os.geteuid() if owner_of is None else owner_of.stat().st_uid
    except OSError as error:
        raise InvalidInput(
            f"MAO_OWNER_OF is {owner_of}, which cannot be examined: {error.strerror}.",
            code="local-users-invalid",
            next="Set it to a file of the user who runs the node.",
        ) from error
    uids = {ROOT, runs_it}
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            uids.add(int(name) if name.isascii() and name.isdigit() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise InvalidInput(
                f"MAO_LOCAL_USERS names {name!r}, which is not a user of this machine.",
                code="local-users-invalid",
                next="Write users by name or number, such as ada,1001; under compose by number (id -u ada).",
            ) from None
    return frozenset(uids)
