"""Health check of a service's container: exit code 0 if `/livez` answers 200.

The request goes to the unix socket MAO_SOCKET, or to MAO_PORT on MAO_HOST. It uses only `http.client`, which
costs a third of `urllib.request` or `curl`, since it runs in every container every few seconds.
"""

import http.client
import os
import socket
import sys

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (valid values of MAO_HOST)


def connect() -> http.client.HTTPConnection:
    """Return a connection to the service; raises OSError."""
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
    """Request `/livez` once; return 1 unless the response is 200."""
    try:
        if os.geteuid() == 0 and (path := os.environ.get("MAO_SOCKET")):
            # The runner's container starts as root, but the runner drops root and answers only its own user.
            # Root without capabilities cannot enter the sockets' folder, but can read its owner.
            owner = os.stat(os.path.dirname(path))  # noqa: PTH116, PTH120 (pathlib is slow to import)
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
        connection = connect()
        connection.request("GET", "/livez")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
