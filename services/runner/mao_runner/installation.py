"""The id that tells this installation's containers from those of others on the same engine."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from mao_shared.errors import MaoError
from mao_shared.host.data_dir import keep_private
from mao_shared.mao_shared_logs import get_logger

log = get_logger(__name__)
FILE = "installation"
_ID = re.compile(rb"[0-9a-f]{16}\n?")


def installation_id(data_dir: Path) -> str:
    """Read from the data directory, where the first start has put it. Blocks.

    A file that holds none (torn by a power cut) is kept under another name, and a new id is made: the power
    cut has ended the containers that bear the old one. Raises MaoError (`data-dir-unusable`) when the
    directory cannot be written.
    """
    path = data_dir / FILE
    try:
        keep_private(data_dir)
        if not path.exists():
            _create(path)
        elif _ID.fullmatch(path.read_bytes()) is None:
            torn = path.with_name(f"{FILE}.torn-{secrets.token_hex(4)}")
            path.rename(torn)
            log.error("installation.torn", kept=str(torn))
            _create(path)
        return path.read_text().strip()
    except OSError as error:
        raise MaoError(
            f"The data directory {data_dir} cannot be used: {error.strerror}.",
            code="data-dir-unusable",
            next="Give MAO_DATA_DIR a folder that the node's user may write.",
        ) from error


def _create(path: Path) -> None:
    """Whole or not at all, and once, whoever else tries at the same time."""
    draft = path.with_name(f".{FILE}-{secrets.token_hex(4)}")
    with draft.open("w") as file:
        file.write(secrets.token_hex(8) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
