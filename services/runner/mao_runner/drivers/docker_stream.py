"""The SDK's streams with their connections closed in the end."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import urllib3
from docker.types.daemon import CancellableStream

from mao_shared.errors import EngineUnavailable

_HEADER = struct.Struct(">BxxxL")  # which stream, and how many bytes follow
_ENGINES_OWN = 3  # the stream on which the engine says what it stumbled over
_PIECE = 64 * 1024  # bytes


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


class DockerLogStream:
    """A container's output, read strictly; see `LogStream`.

    The SDK's own reader takes a connection that breaks for the end of the output, and the engine's complaint
    that it cannot read on for output of the tool.
    """

    def __init__(self, client: Any, container_id: str) -> None:
        wanted = {"stdout": 1, "stderr": 1, "follow": 1, "tail": "all"}
        url = client._url("/containers/{0}/logs", container_id)
        self._response = client._get(url, params=wanted, stream=True)
        try:
            client._raise_for_status(self._response)
            client._disable_socket_timeout(client._get_raw_response_socket(self._response))
        except BaseException:
            self._response.close()
            raise
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while header := self._read(_HEADER.size, may_end=True):
                kind, length = _HEADER.unpack(header)
                if kind == _ENGINES_OWN:
                    words = self._read(length).decode(errors="replace").strip()
                    raise EngineUnavailable(f"The engine cannot read the output on: {words}")
                while length:
                    piece = self._read(min(length, _PIECE))
                    length -= len(piece)
                    yield piece
        except (OSError, ValueError, AttributeError, HTTPException, urllib3.exceptions.HTTPError) as error:
            if self._closed:
                return
            raise EngineUnavailable(f"The engine broke the output off: {error}") from error
        finally:
            self._response.close()

    def _read(self, size: int, *, may_end: bool = False) -> bytes:
        """Exactly so many bytes; none only where the output may end."""
        data = b""
        while len(data) < size:
            more: bytes = self._response.raw.read(size - len(data))
            if not more:
                if may_end and not data:
                    return b""
                raise EngineUnavailable("The engine broke the output off in mid-line.")
            data += more
        return data

    def close(self) -> None:
        """Ends the iteration, from any thread; the thread that iterates closes the connection."""
        self._closed = True
        with contextlib.suppress(Exception):  # it has ended already, in one of several ways
            CancellableStream(iter(()), self._response).close()
