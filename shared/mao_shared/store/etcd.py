"""Ends the watches of a user who was struck off: etcd asks for rights only when a watch begins."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from aetcd import rpc

from mao_shared.errors import Unavailable

from .etcd_auth import Access, range_end
from .store_etcd_channel import Caller

CHECK_SECONDS = 10.0


class IdentityGuard:
    """Shared by a store's watches, so that one small read every `CHECK_SECONDS` does for all of them."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._due = time.monotonic() + CHECK_SECONDS

    async def next_response(self, call: Any, prefix: str) -> Any:
        """The watch's next response; raises Unauthorized or Forbidden as soon as we may not read `prefix`."""
        reading = asyncio.ensure_future(call.read())
        try:
            while not (await asyncio.wait({reading}, timeout=CHECK_SECONDS))[0]:
                await self.check(prefix)
            await self.check(prefix)
            return reading.result()
        finally:
            reading.cancel()

    async def check(self, prefix: str) -> None:
        """Raises as `next_response` does; asks etcd only when nobody has for `CHECK_SECONDS`."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + CHECK_SECONDS
        # Serializable: answered from the member's own memory, without a round through its peers.
        request = rpc.RangeRequest(
            key=prefix.encode(), range_end=range_end(prefix), serializable=True, keys_only=True, limit=1
        )
        read = self._caller.read(
            lambda e: e.kv.Range(request, timeout=self._caller.deadline), Access("read", prefix, prefix=True)
        )
        try:
            with contextlib.suppress(Unavailable):  # the watch itself notices
                await read
        except Exception:
            self._due = now  # the other watches are to hear it too
            raise
