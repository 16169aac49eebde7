"""What must hold before a node starts; each failure says the next step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mao_shared.errors import Conflict, NotFound
from mao_shared.etcd_version import OUTPUT_FILE
from mao_shared.listeners import loopback_listeners
from mao_shared.workspace import keep_private

LOCK = "node.lock"


def lock(data_dir: Path) -> int:
    """Takes the data directory for this process; returns the open descriptor that holds the lock.

    Raises Conflict: `node-running` when another node has it, `data-dir-unusable` when it cannot be written.
    """
    try:
        keep_private(data_dir)
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Conflict(
            f"The data directory {data_dir} cannot be used: {error.strerror}.",
            code="data-dir-unusable",
            next="Set MAO_DATA_DIR to a folder that this user may write, or mend that one.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode() or "unknown"
        os.close(descriptor)
        raise Conflict(
            f"A node already runs on {data_dir} (process {holder}).",
            code="node-running",
            next="Stop it with Ctrl-C, or set MAO_DATA_DIR and MAO_GATEWAY_PORT for a second node.",
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def check_ports(ports: Iterable[int]) -> None:
    """Raises Conflict (`port-taken`) naming the first port that something else listens on."""
    for port in ports:
        for listener in loopback_listeners(port):
            listener.close()


def check_program(name: str) -> None:
    """Raises NotFound when a program that the node starts is not on the PATH."""
    if shutil.which(name) is None:
        raise NotFound(
            f"The program {name!r} is not on the PATH.",
            code="program-missing",
            next="Run scripts/machine.sh etcd and start the node by './dev' or 'make node', set MAO_ETCD to"
            " the program, or MAO_ETCD_ENDPOINTS to an etcd that is there.",
        )


def note_etcd_version(program: str, folder: Path) -> None:
    """Lets the registry know which etcd it would be that runs for a federation: an old one is no reason for a
    node that stands alone not to start, nor is none where the node's own is elsewhere. `folder`:
    MAO_FEDERATION_DIR. Raises Conflict (`federation-dir-unusable`).
    """
    if shutil.which(program) is None:
        (folder / OUTPUT_FILE).unlink(missing_ok=True)
        return
    told = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.check_output([program, "--version"], text=True, timeout=10)  # noqa: S603
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / f".new-{OUTPUT_FILE}"
        new.write_text(told)
        new.replace(folder / OUTPUT_FILE)
    except OSError as error:
        raise Conflict(
            f"The folder {folder} cannot be used: {error.strerror}.",
            code="federation-dir-unusable",
            next="Let MAO_FEDERATION_DIR name a folder that belongs to the user whom the node runs as.",
        ) from error
