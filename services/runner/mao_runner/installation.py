"""The id that tells this installation's containers from those of others on the same engine."""

from __future__ import annotations

import secrets
from pathlib import Path

from mao_shared.errors import MaoError
from mao_shared.workspace import keep_private

FILE = "installation"


def installation_id(data_dir: Path) -> str:
    """Read from the data directory, where the first start has put it. Blocks.

    Raises MaoError (`data-dir-unusable`) when the directory cannot be written.
    """
    path = data_dir / FILE
    try:
        keep_private(data_dir)
        if not path.exists():
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
    draft.write_text(secrets.token_hex(8) + "\n")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
