"""The sockets on which a service listens."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from mao_shared.errors import Conflict

LOOPBACK = ("127.0.0.1", "::1")
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # a machine without IPv6


def loopback_listeners(port: int) -> list[socket.socket]:
    """Listens at a port of loopback, by both protocols where there are both.

    `localhost` may mean either. Another user's program at the one that was left free would be taken for this
    one; and a page that it hands out is, to a browser, of the same origin as ours. Raises Conflict
    (`port-taken`).
    """
    made: list[socket.socket] = []
    for host in LOOPBACK:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made.append(socket.create_server((host, port), family=family))
        except OSError as error:
            if made and error.errno in _NO_SUCH_ADDRESS:
                continue
            for each in made:
                each.close()
            raise Conflict(
                f"Port {port} on {host} cannot be listened at: {error.strerror}.",
                code="port-taken",
                next=f"See who has it: ss -lntp 'sport = :{port}'. Or set MAO_GATEWAY_PORT, say to 8180.",
            ) from error
    return made


def unix_listener(path: Path) -> socket.socket:
    """A socket at `path` that only our own user and root may connect to; one that a killed process left goes.

    Raises OSError, say for a folder that is not there.
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
