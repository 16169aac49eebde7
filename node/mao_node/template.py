"""A process that has imported what all services share and forks itself into any of them.

Five interpreters that import the same libraries by themselves hold them five times; forked from one that has
them, they share those pages (docs/decisions/0006-forked-services.md has the figures). `forks.py` starts it as
`python -m mao_node.template FD` and asks over the socket FD for one service a message:
JSON `{"argv", "module", "env", "parent"}` with two file descriptors, one for the service's output and one on
which it says its pid.
The template answers nothing: whenever it is killed, a service has said its pid or has not come to be.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mao_shared.store import load_etcd

LARGEST_REQUEST = 1 << 18  # bytes; an environment is far smaller
SHARED = (
    "mao_shared.models",
    "mao_shared.service",
    "mao_shared.reconcile",
    "mao_shared.web.idempotency",
    "mao_shared.clients",
    "mao_shared.federation",  # three of the five
    "mao_shared.web.http",
    # Two of the five:
    "cryptography.hazmat.primitives.ciphers",
    "cryptography.hazmat.primitives.hashes",
    "difflib",
    "mao_shared.agreements",
    "mao_shared.git_urls",
    "tarfile",
    # What these import only when they are first used:
    "anyio._backends._asyncio",
    "httpcore",
    "httpcore._backends.anyio",
    "pydantic.v1",  # by FastAPI
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)
_PR_SET_PDEATHSIG = 1
_ARG_START, _ARG_END = 45, 46  # in /proc/self/stat, counted from behind the command's name


def main() -> None:
    """Forks services until the other end of the socket is closed."""
    for module in SHARED:
        importlib.import_module(module)
    load_etcd()
    gc.collect()
    gc.freeze()  # the collector then leaves the shared pages alone
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while True:
            message, descriptors, *_ = socket.recv_fds(requests, LARGEST_REQUEST, 2)
            if not message:
                return
            if _fork_orphan():
                requests.close()
                _become(json.loads(message), *descriptors)
                return
            for descriptor in descriptors:
                os.close(descriptor)


def _fork_orphan() -> bool:
    """True in the new process, which becomes a child of the supervisor: it is the next subreaper."""
    if (between := os.fork()) == 0:
        if os.fork() == 0:
            return True
        os._exit(0)
    os.waitpid(between, 0)
    return False


def _become(request: dict[str, Any], output: int, hello: int) -> None:
    os.setsid()
    _die_with(request["parent"])
    os.write(hello, str(os.getpid()).encode())
    os.close(hello)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    settled = {name: value for name, value in os.environ.items() if name.startswith("GRPC_")}
    os.environ.clear()  # but for what mao_shared.store set when gRPC was imported
    os.environ.update({**settled, **request["env"]})
    _rename(request["argv"])
    sys.argv = [request["module"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _die_with(parent: int) -> None:
    """Lets the kernel send SIGTERM when the supervisor dies; it forgets that when the parent changes."""
    deadline = time.monotonic() + 5
    while os.getppid() != parent and time.monotonic() < deadline:
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _rename(argv: list[str]) -> None:
    """Shows the service's command line in `ps`, in the space that this process's own has."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, size = int(fields[_ARG_START]), int(fields[_ARG_END]) - int(fields[_ARG_START])
    text = b"\0".join(word.encode() for word in argv)[: size - 1]
    ctypes.memmove(start, text.ljust(size, b"\0"), size)


if __name__ == "__main__":
    main()
