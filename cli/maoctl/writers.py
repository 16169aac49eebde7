"""Files and logs on stdout."""

from __future__ import annotations

import sys

from .output import write, write_bytes
from .text import TerminalText


class TextWriter:
    """Bytes to stdout: as they are for programs, made harmless for terminals unless `raw`."""

    def __init__(self, raw: bool = False) -> None:
        self._text = None if raw or not sys.stdout.isatty() else TerminalText()

    def write(self, data: bytes) -> int:
        """Takes a piece, wherever it is cut; the number of bytes, as files have it."""
        if self._text is None:
            write_bytes(data)
        else:
            write(self._text.feed(data))
        return len(data)

    def end(self) -> None:
        """There is no more to come."""
        if self._text is not None:
            write(self._text.feed(b"", final=True))
