"""Encryption of secrets that are kept in the store, with keys in the data directory, never in the store.

The only module of the services that imports `cryptography.fernet`; it is loaded at the first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mao_shared.errors import MaoError

from .files import replace_file, sync_folder

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_FILE = "secret.key"  # for the URLs of channels, and what webhooks and heartbeats have
TOOL_KEYS = "tool-secrets.key"


class SealedSecrets:
    """Encrypts with the first key in a file of the data directory and decrypts with any, one per line.

    All methods block.
    """

    def __init__(self, data_dir: Path, key_file: str = KEY_FILE) -> None:
        self._path = data_dir / key_file

    def seal(self, secret: str) -> str:
        """Encrypt a secret. Raises MaoError (`secret-key-unusable`) if the key file has no valid key."""
        return self._fernet().encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a secret. Raises MaoError (`secret-unreadable` if no key matches, or as `seal`)."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet().decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise MaoError(
                f"A secret cannot be decrypted with the keys in {self._path}.",
                code="secret-unreadable",
                next="Restore the old key file, or remove what uses the secret and add it again.",
            ) from error

    def add_key(self) -> None:
        """Put a new key above the present one, unless an unfinished rotation has left several.

        So no number of failed rotations drops a key that is still needed. Raises MaoError
        (`secret-key-unusable`).
        """
        from cryptography.fernet import Fernet

        self._fernet()
        present = self._path.read_text().split()
        if len(present) == 1:
            replace_file(self._path, f"{Fernet.generate_key().decode()}\n{present[0]}\n".encode())

    def drop_old_keys(self) -> None:
        """Keep the first key only: nothing that was sealed with another can be opened any more."""
        replace_file(self._path, f"{self._path.read_text().split()[0]}\n".encode())

    def _fernet(self) -> MultiFernet:
        from cryptography.fernet import Fernet, MultiFernet

        if not self._path.exists():
            _make_key(self._path, Fernet.generate_key())
        try:
            return MultiFernet([Fernet(line) for line in self._path.read_text().split()])
        except ValueError as error:  # empty, truncated, or not text
            raise MaoError(
                f"The file {self._path} contains no usable key.",
                code="secret-key-unusable",
                next="Restore the old file. Without it, move the file away, and set all secrets again "
                "('maoctl secret get', 'maoctl alarm channel get', 'maoctl webhook get').",
            ) from error


def _make_key(path: Path, key: bytes) -> None:
    """Write a new key file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # never replaces one that another process created meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)
