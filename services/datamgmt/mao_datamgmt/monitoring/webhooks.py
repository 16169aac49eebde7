"""Secrets at rest: encrypted with a key that lies in the data directory, never in the store."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from mao_shared.errors import MaoError

KEY_FILE = "secret.key"


class SealedSecrets:
    """Seals with the first key of `<data_dir>/secret.key` and opens with all of them, one a line.

    To rotate, put a new key (`Fernet.generate_key`) above the others.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEY_FILE

    def seal(self, secret: str) -> str:
        """Raises MaoError (`secret-key-unusable`) for a key file that holds no key."""
        return self._box().encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises MaoError (`secret-unreadable`) when none of the keys fits, and as `seal`."""
        try:
            return self._box().decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise MaoError(
                f"A secret cannot be decrypted with the keys in {self._path}.",
                code="secret-unreadable",
                next="Put the old key file back, or add the secret anew.",
            ) from error

    def _box(self) -> MultiFernet:
        if not self._path.exists():
            _make_key(self._path)
        try:
            return MultiFernet([Fernet(line) for line in self._path.read_text().split()])
        except ValueError as error:  # empty, cut short, or not text
            raise MaoError(
                f"The file {self._path} holds no usable key.",
                code="secret-key-unusable",
                next="Put the old file back. Without it, move the file away, and add the webhooks anew.",
            ) from error


def _make_key(path: Path) -> None:
    """A new key file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # does not replace one that another process has made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
