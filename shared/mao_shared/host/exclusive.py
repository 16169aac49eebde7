"""One process of a service at a time on a data directory, by a lock that ends with the process.

What is in etcd is guarded write by write and needs no lock. Folders and containers have no revisions: a
second process that is a little behind could lay a workspace anew under a tool, or run one again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mao_shared.errors import Conflict

from .data_dir import keep_private


@contextmanager
def only_process(data_dir: Path, service: str) -> Iterator[None]:
    """Holds `<data_dir>/<service>.lock`; raises Conflict (`already-running`) when another process has it."""
    keep_private(data_dir)
    path = data_dir / f"{service}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another {service} works on the data directory {data_dir}, so this one does not start.",
                code="already-running",
                next=f"Stop one of the two (who has it: fuser {path}), or give one its own MAO_DATA_DIR and "
                "MAO_NODE.",
            ) from error
        yield
