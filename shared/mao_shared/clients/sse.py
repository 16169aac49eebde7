"""Server-sent events: lines in, events out (the reading half of the WHATWG format)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` is the last one the stream has named, to resume after it."""

    event: str
    data: str
    id: str | None


class EventParser:
    """Takes the lines of a stream, without their ends; an empty one completes an event."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._event = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> ServerEvent | None:
        if line:
            self._field(*_split(line))
            return None
        event = ServerEvent(self._event, "\n".join(self._data), self.last_id) if self._data else None
        self._event, self._data = "message", []
        return event

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_id = value


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")  # a comment has an empty name and is dropped
    return name, value.removeprefix(" ")


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events of a stream's lines."""
    parser = EventParser()
    for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event


async def read_events_async(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    """The events of a stream's lines."""
    parser = EventParser()
    async for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event
