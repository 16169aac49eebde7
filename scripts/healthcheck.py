"""Health check of a service's container: exit code 0 when the service says that it lives.

It is asked where it serves: at its unix socket, MAO_SOCKET, or at MAO_PORT of MAO_HOST. Needs nothing but
`http.client`, and so costs a third of what `urllib.request` or `curl` would: it runs in every container
every few seconds.
"""

import http.client
import os
import socket
import sys

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (as a service may be told to listen)


def connect() -> http.client.HTTPConnection:
    """A connection to the service; raises OSError."""
    host = os.environ.get("MAO_HOST", "127.0.0.1")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in EVERYWHERE else host, int(os.environ.get("MAO_PORT", "8080")), timeout=2
    )
    if path := os.environ.get("MAO_SOCKET"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(2)
        connection.sock.connect(path)
    return connection


def main() -> int:
    """Ask `/livez` once; 1 when the answer is not 200 or there is none."""
    try:
        if os.geteuid() == 0 and (path := os.environ.get("MAO_SOCKET")):
            # The runner's container starts as root, the runner does not stay it and answers only itself.
            # Without capabilities root sees nothing inside of the sockets' folder, but whose that is.
            owner = os.stat(os.path.dirname(path))  # noqa: PTH116, PTH120 (pathlib takes longer than to ask)
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
        connection = connect()
        connection.request("GET", "/livez")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
