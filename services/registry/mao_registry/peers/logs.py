"""Log requests between nodes: asks another node for the end of a log, and answers such requests.

Answers other nodes that ask for the end of a run's log, if this node's operator allows it.

Asks are other nodes' writes: of bounded size, from the node under whose prefix they lie, and only so many at
a time. Everything hangs on leases that end by themselves.

Asks another node for the end of a run's log, through the federation's store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import aclosing, suppress

from pydantic import ValidationError

from mao_registry.node_services import NodeServices
from mao_registry.records.repositories import Repositories
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, Forbidden, MaoError, NotFound, PeerUnavailable, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import LogAnswer, LogAsk
from mao_shared.models.common import STORED
from mao_shared.models.federation import MAX_LOG_ANSWER
from mao_shared.reconcile import Backoff, Guard, every
from mao_shared.store import Event
from mao_shared.store.records import dump

from .queries import PeerQueries

log = get_logger(__name__)

LEASE = 60  # seconds that an answer stays

LARGEST_ASK = 4096  # bytes

LARGEST_RECORD = 1_000_000  # bytes of an answer as it is stored: escapes make it longer than its text

AT_ONCE = 2  # answers under way

WAITING = 20  # asks that wait for one; more are not heard, and ask again

OF_ONE = 4  # of these, from the same node

RETRY = 5.0  # seconds, while the federation does not answer


class LogResponder:
    """`run` works until cancelled; `answer` is what an ask gets."""

    def __init__(
        self, shelf: Repositories, peers: NodeServices, *, shared: bool, conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("log-answers", conditions)
        self.shelf = shelf
        self.peers = peers
        self.shared = shared
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting: Counter[str] = Counter()  # by who asks

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:

            async def follow() -> None:
                with suppress(Compacted):
                    await self._follow(group)

            await every(
                0.0, follow, name="log-answers", conditions=self._conditions, away=Backoff(RETRY, 5.0)
            )

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        store = self.shelf.federation
        after = (await store.list(keys.all_peers(), limit=1)).revision
        async with aclosing(store.watch(keys.all_peers(), after=after)) as batches:
            async for batch in batches:
                for event in batch:
                    ask = self._heard_in(event)
                    if ask is not None and self._has_room(ask.node):
                        self._waiting[ask.node] += 1
                        group.create_task(self._serve(ask))

    def _heard_in(self, event: Event) -> LogAsk | None:
        with self._guard.item(event.key):  # the next ones are heard; it is forgotten when its lease ends
            return self._ask_in(event)
        return None

    def _has_room(self, asker: str) -> bool:
        return self._waiting[asker] < OF_ONE and self._waiting.total() < WAITING

    def _ask_in(self, event: Event) -> LogAsk | None:
        """An ask of another node to this one; None for everything else."""
        asker, rest = keys.split_peer(event.key)
        entry = event.entry
        if entry is None or rest[:1] != ["asks"] or len(rest) != 2 or len(entry.value) > LARGEST_ASK:
            return None
        try:
            ask = LogAsk.model_validate_json(entry.value, context=STORED)
        except ValidationError:
            return None
        honest = (ask.node, ask.id) == (asker, rest[1])
        return ask if honest and ask.of == self.shelf.node and asker != self.shelf.node else None

    async def _serve(self, ask: LogAsk) -> None:
        try:
            async with self._slots:
                await self._write(await self.answer(ask))
            log.info("logs.answered", node=ask.node, run=ask.run, shared=self.shared)
        except Exception as error:
            expected = isinstance(error, MaoError)
            log.warning("logs.not_answered", node=ask.node, error=str(error), exc_info=not expected)
        finally:
            self._waiting -= Counter([ask.node])  # and forgets those at none

    async def _write(self, answer: LogAnswer) -> None:
        store = self.shelf.federation
        lease = await store.grant(LEASE)
        await store.create(keys.answer(self.shelf.node, answer.id), dump(answer), lease=lease)

    async def answer(self, ask: LogAsk) -> LogAnswer:
        """What this node says; a refusal is an answer too."""
        if not self.shared and ask.node != self.shelf.node:
            why = f"{self.shelf.node} does not share its logs: its operator has to set MAO_SHARE_LOGS=true"
            return LogAnswer(id=ask.id, status="refused", detail=why)
        try:
            return await self._read(ask)
        except NotFound as error:
            return LogAnswer(id=ask.id, status="not-found", detail=error.detail[:2000])
        except MaoError as error:
            return LogAnswer(id=ask.id, status="failed", detail=error.detail[:2000])

    async def _read(self, ask: LogAsk) -> LogAnswer:
        stored = await self.shelf.runs.get(ask.run)
        if stored is None:
            raise NotFound(f"There is no run {ask.run!r} on the node {self.shelf.node!r}.")
        names = [each.spec.name for each in stored.record.steps]
        if ask.step is not None and ask.step not in names:
            raise NotFound(f"The run has no step {ask.step!r}; its steps: {', '.join(names)}.")
        index, data = await self.peers.log_end(ask.run, ask.step, MAX_LOG_ANSWER + 1)
        text, cut = last_lines(data, ask.tail)
        step = stored.record.steps[index].spec.name if index < len(stored.record.steps) else ""
        return shorten_to_fit(LogAnswer(id=ask.id, status="ok", step=step, text=text, cut=cut))


def last_lines(data: bytes, lines: int) -> tuple[str, bool]:
    """The last lines of at most MAX_LOG_ANSWER bytes, and whether there was more."""
    kept = data[-MAX_LOG_ANSWER:]
    split = kept.decode(errors="replace").splitlines(keepends=True)
    return "".join(split[-lines:]), len(kept) < len(data) or len(split) > lines


def shorten_to_fit(answer: LogAnswer) -> LogAnswer:
    """With less of the text until the record fits the store, however much of it JSON has to escape."""
    while len(dump(answer)) > LARGEST_RECORD:
        answer = answer.model_copy(update={"text": answer.text[len(answer.text) // 2 :], "cut": True})
    return answer


ANSWER_TIMEOUT = 20.0  # seconds


class LogRequests:
    """`read` waits for the other node at most PATIENCE."""

    def __init__(self, shelf: Repositories, seeing: PeerQueries, own: LogResponder) -> None:
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
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._answered(ask, written or 0)
        except (TimeoutError, Compacted):
            raise PeerUnavailable(
                f"The node {ask.of!r} has not answered within {ANSWER_TIMEOUT:g} s.",
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
                        return _parse_answer(entry.value, ask)
        raise TimeoutError


def _parse_answer(value: bytes, ask: LogAsk) -> LogAnswer:
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
