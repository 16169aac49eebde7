"""Asks another node for the end of a run's log, through the federation's store."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing, suppress

from pydantic import ValidationError

from mao_registry.records.repositories import Shelf
from mao_shared import keys
from mao_shared.errors import Compacted, Forbidden, NotFound, PeerUnavailable, Unavailable
from mao_shared.models import LogAnswer, LogAsk
from mao_shared.models.common import STORED
from mao_shared.store.records import dump

from .logs import LARGEST_RECORD, LEASE, LogAnswers
from .seeing import Seeing

PATIENCE = 20.0  # seconds


class LogAsks:
    """`read` waits for the other node at most PATIENCE."""

    def __init__(self, shelf: Shelf, seeing: Seeing, own: LogAnswers) -> None:
        self.shelf = shelf
        self.seeing = seeing
        self.own = own

    async def read(self, node: str, run: str, step: str | None, tail: int) -> LogAnswer:
        """Raises NotFound, Forbidden (`logs-not-shared`), PeerUnavailable (`node-absent`, `node-silent`)."""
        ask = LogAsk(id=secrets.token_hex(8), node=self.shelf.node, of=node, run=run, step=step, tail=tail)
        if node == self.shelf.node:
            return _checked(await self.own.answer(ask), node)
        state = await self.seeing.node(node)
        if not state.present:
            raise PeerUnavailable(
                f"The node {node!r} is not present.",
                code="node-absent",
                next=f"See when it was last seen: maoctl node show {node}",
            )
        if not state.logs_shared:
            raise _not_shared(node, "it does not share its logs")
        return _checked(await self._exchange(ask), node)

    async def _exchange(self, ask: LogAsk) -> LogAnswer:
        store = self.shelf.federation
        lease = await store.grant(LEASE)
        try:
            written = await store.create(keys.ask(self.shelf.node, ask.id), dump(ask), lease=lease)
            async with asyncio.timeout(PATIENCE):
                return await self._answered(ask, written or 0)
        except (TimeoutError, Compacted):
            raise PeerUnavailable(
                f"The node {ask.of!r} has not answered within {PATIENCE:g} s.",
                code="node-silent",
                next="Try again; it may be busy or cut off.",
            ) from None
        finally:
            with suppress(Unavailable):  # it ends by itself then
                await store.revoke(lease)

    async def _answered(self, ask: LogAsk, since: int) -> LogAnswer:
        key = keys.answer(ask.of, ask.id)
        async with aclosing(self.shelf.federation.watch(key, after=since)) as batches:
            async for batch in batches:
                for entry in (event.entry for event in batch if event.key == key):
                    if entry is not None and len(entry.value) <= 2 * LARGEST_RECORD:
                        return _parse(entry.value, ask)
        raise TimeoutError


def _parse(value: bytes, ask: LogAsk) -> LogAnswer:
    with suppress(ValidationError):
        answer = LogAnswer.model_validate_json(value, context=STORED)
        if answer.id == ask.id:
            return answer
    raise PeerUnavailable(
        f"What the node {ask.of!r} has answered cannot be read.",
        code="node-answer-unreadable",
        next="Run the same version of MAO on all nodes.",
    )


def _checked(answer: LogAnswer, node: str) -> LogAnswer:
    if answer.status == "ok":
        return answer
    if answer.status == "not-found":
        raise NotFound(
            answer.detail or f"{node} has no such log.",
            code="log-not-found",
            next="See the runs of all nodes: maoctl pipeline runs NAME --all-nodes",
        )
    if answer.status == "refused":
        raise _not_shared(node, answer.detail)
    raise PeerUnavailable(f"The node {node!r} could not read it: {answer.detail}", next="Try again later.")


def _not_shared(node: str, why: str) -> Forbidden:
    return Forbidden(
        f"The node {node!r} does not let others read its logs: {why}.",
        code="logs-not-shared",
        next="Ask its operator to set MAO_SHARE_LOGS=true there.",
    )
