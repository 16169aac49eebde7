"""The SDK's streams with their connections closed in the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class DockerStream:
    """Wraps the SDK's CancellableStream, which ends for another thread but never closes its response."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._stream
        finally:
            self.release()

    def close(self) -> None:
        """Ends the iteration, from any thread; the thread that iterates closes the connection."""
        with contextlib.suppress(Exception):  # it has ended already, in one of several ways
            self._stream.close()

    def release(self) -> None:
        """Closes the connection, in the thread that reads or when nobody does."""
        self._stream._response.close()
