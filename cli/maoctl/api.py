"""What the commands need of the gateway; `mao_shared.clients.gateway.MaoClient` provides it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

Record = dict[str, Any]


class Event(Protocol):
    """One server-sent event: `id` resumes behind it, `event` is its type (`message` unless named)."""

    @property
    def id(self) -> str | None: ...
    @property
    def event(self) -> str: ...
    @property
    def data(self) -> str: ...


class Api(Protocol):
    """Calls by path. All raise the exceptions of mao_shared.errors; PeerUnavailable without an answer.

    Parameters that are None are left out. Creating calls carry an Idempotency-Key of their own.
    """

    def get(self, path: str, **params: Any) -> Any: ...

    def get_tagged(self, path: str) -> tuple[Record, str | None]:
        """A record and its ETag."""
        ...

    def items(self, path: str, limit: int | None = None, **params: Any) -> list[Record]:
        """The items of a listing over all its pages, at most `limit`."""
        ...

    def post(self, path: str, body: Any = None, timeout: float | None = None) -> Any: ...

    def put(self, path: str, body: Any, if_match: str | None = None) -> Any: ...

    def delete(self, path: str, if_match: str | None = None) -> Any: ...

    def stream(self, path: str, **params: Any) -> AbstractContextManager[Iterator[bytes]]:
        """The body in chunks, as it comes."""
        ...

    def events(
        self, path: str, last_event_id: str | None = None, **params: Any
    ) -> AbstractContextManager[Iterator[Event]]:
        """Server-sent events; entered when the server has accepted the subscription."""
        ...

    def close(self) -> None: ...
