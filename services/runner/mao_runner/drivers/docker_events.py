"""The engine's stream of events, read by a thread of its own and handed to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from .docker_responses import read_event, short
from .docker_stream import DockerStream
from .protocol import Connected, Disconnected, EngineEvent

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to connect


class EventThread(threading.Thread):
    """Reads until `stop`, connecting again whenever the stream ends; see `Driver.events`.

    Args:
        connect: gives the SDK's client, or raises.
        filters: of the events call.
        loop: whose queue `events` is.
    """

    def __init__(
        self, connect: Callable[[], Any], filters: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="engine-events", daemon=True)
        self.events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._connect = connect
        self._filters = filters
        self._loop = loop
        self._stopping = threading.Event()
        self._stream: DockerStream | None = None
        self._pause = FIRST_PAUSE

    def run(self) -> None:
        while not self._stopping.is_set():
            reason = "its stream of events ended"
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 (whatever it is, the next attempt may go well)
                reason = short(str(error))
            self._put(Disconnected(reason))
            self._stopping.wait(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def stop(self) -> None:
        """Ends the thread soon; may be called from any thread."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()

    def _read(self) -> None:
        # `since` covers the moment between the engine's answer and its subscription; what it repeats
        # of this second does no harm.
        since = int(time.time())
        client = self._connect()
        self._stream = DockerStream(client.events(filters=self._filters, decode=True, since=since))
        self._pause = FIRST_PAUSE
        if self._stopping.is_set():
            self._stream.release()
            return
        self._put(Connected())
        for raw in self._stream:
            if (event := read_event(raw)) is not None:
                self._put(event)

    def _put(self, event: EngineEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)
