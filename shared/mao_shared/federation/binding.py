"""Binding to the store that currently holds the federation's records, and cursors tagged with its name."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator

from mao_shared.errors import FederationUnavailable, NodeRemoved, StoreSwitched
from mao_shared.models.federation import Link
from mao_shared.store import Batch, Store
from mao_shared.store.protocol import cursor_invalid

_TAGGED = re.compile(r"([0-9a-f]{8})@(.+)", re.DOTALL)


def write_cursor(cursor: str | None, name: str) -> str | None:
    """Return the store's cursor, tagged with the store's name."""
    return None if cursor is None else f"{_tag(name)}@{cursor}"


def read_cursor(cursor: str | None, name: str) -> str | None:
    """Return the untagged cursor; raises StoreSwitched for another store's, InvalidInput if malformed."""
    if cursor is None:
        return None
    match = _TAGGED.fullmatch(cursor)
    if match is None:
        raise cursor_invalid()
    if match[1] != _tag(name):
        raise StoreSwitched
    return match[2]


def _tag(name: str) -> str:
    return f"{zlib.crc32(name.encode()):08x}"


UNREACHABLE = "The federation does not answer: "


class StoreBinding:
    """A store under a name; two bindings with one name reach the same etcd by different addresses.

    Args:
        store: None if it could not be opened, for the reason `fault`.
        opened: the binding owns the store and closes it once it is retired and no longer in use.
    """

    def __init__(
        self,
        name: str,
        store: Store | None,
        *,
        link: Link | None = None,
        fault: str = "",
        opened: bool = False,
    ) -> None:
        self.name = name
        self.link = link
        self.fault = fault
        self.ended = asyncio.Event()
        self._store = store
        self._opened = opened
        self._users = 0
        self._closing: asyncio.Task[None] | None = None

    @property
    def is_own(self) -> bool:
        """True if this is the node's own store."""
        return self.name == ""

    @property
    def is_open(self) -> bool:
        return self._store is not None

    @contextlib.contextmanager
    def used(self) -> Iterator[Store]:
        """Yield the store and keep it open during the block; raises FederationUnavailable."""
        if self._store is None:
            raise federation_unreachable(self.fault)
        self._users += 1
        try:
            yield self._store
        finally:
            self._users -= 1
            self._close_if_idle()

    def retire(self) -> None:
        """End the watches; close the store after its last call."""
        self.ended.set()
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._opened and self._store and self.ended.is_set() and not self._users and not self._closing:
            self._closing = asyncio.create_task(self._store.close())

    @property
    def is_closed(self) -> bool:
        """True if the binding is retired and its store is closed."""
        return not self._opened or self._store is None or (self._closing is not None and self._closing.done())

    async def closed(self) -> None:
        """Wait until a retired binding's store is closed, unless it is still in use."""
        if self._closing is not None:
            await self._closing


def federation_unreachable(reason: str, next_step: str | None = None) -> FederationUnavailable:
    """Return the error for a call that needs the federation's store."""
    return FederationUnavailable(UNREACHABLE + reason, next=next_step or _WAIT)


def node_removed(federation: str) -> NodeRemoved:
    """Return the error for a node that the federation has removed; retrying does not help."""
    return NodeRemoved(
        f"This node was removed from {federation!r}.",
        next="Run 'maoctl federation leave', then join with a new token.",
    )


_WAIT = (
    "Start the core nodes that do not answer ('maoctl federation list'), then try again; this node "
    "reconnects by itself."
)


async def until_ended(watch: AsyncGenerator[Batch, None], end: asyncio.Event) -> AsyncGenerator[Batch, None]:
    """Yield the batches of a watch until `end` is set; close it with `aclosing`."""
    ending = asyncio.create_task(end.wait())
    try:
        async with contextlib.aclosing(watch):
            while (step := await _first(watch, ending)) is not None:
                yield step.result()
    finally:
        ending.cancel()


async def with_idle_batches(
    watch: AsyncGenerator[Batch, None], patience: Callable[[], float | None]
) -> AsyncGenerator[Batch, None]:
    """Yield the batches of a watch, and an empty one after `patience()` seconds without any (None: never).

    Close it with `aclosing`.
    """
    async with contextlib.aclosing(watch):
        while True:
            step = asyncio.create_task(_next(watch))
            try:
                while not (await asyncio.wait({step}, timeout=patience()))[0]:
                    yield []
                yield step.result()
            finally:
                await _end(step)


async def _end(step: asyncio.Task[Batch]) -> None:
    if not step.done():
        step.cancel()
        await asyncio.wait([step])
    elif not step.cancelled():
        step.exception()  # retrieve it, or asyncio logs it


async def _first(
    watch: AsyncGenerator[Batch, None], ending: asyncio.Task[bool]
) -> asyncio.Task[Batch] | None:
    """Return the watch's next batch, or None if `ending` ends first; leaves no task running."""
    step = asyncio.create_task(_next(watch))
    try:
        await asyncio.wait({step, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(step)
    return None if step.cancelled() else step


async def _next(watch: AsyncGenerator[Batch, None]) -> Batch:
    return await anext(watch)
