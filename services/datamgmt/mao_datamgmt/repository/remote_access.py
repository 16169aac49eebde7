"""With what a remote is opened, and whether it is on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """With what this node opens remotes: the private keys in `key_dir`, no agent and no passwords."""

    key_dir: Path | None = None

    def private_keys(self) -> list[Path]:
        """The private keys that can be read, best first."""
        return (
            []
            if self.key_dir is None
            else [p for n in KEY_NAMES if os.access(p := self.key_dir / n, os.R_OK)]
        )


def local_path(url: str) -> Path | None:
    """The folder that a path or file:// URL means; None for a remote over the network."""
    if url.startswith("/"):
        return Path(url)
    return Path(unquote(urlsplit(url).path)) if url.startswith("file://") else None
