"""Requests for the end of another node's log, and the responder that answers them.

Both are records in the federation's store, on leases that expire. Requests are untrusted: their size and
number are limited, and a request counts only if it is under the prefix of the node it names.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import aclosing, suppress

from pydantic import ValidationError

from mao_registry.node_services import NodeServices
from mao_registry.records.stores import OUTAGE_BACKOFF, Repositories
from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.errors import Compacted, Forbidden, MaoError, NotFound, PeerUnavailable, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import LogAnswer, LogAsk
from mao_shared.models.common import STORED
from mao_shared.models.federation import MAX_LOG_ANSWER
from mao_shared.reconcile import Guard, follow
from mao_shared.store import Batch, Event
from mao_shared.store.records import dump

from .queries import PeerQueries

log = get_logger(__name__)
ANSWER_TIMEOUT = 20.0  # seconds that a request waits for the other node
LEASE_TTL = 60  # seconds
MAX_REQUEST_BYTES = 4096
MAX_RECORD_BYTES = 1_000_000  # of a stored answer; JSON's escapes make it longer than its text
CONCURRENT_ANSWERS = 2
MAX_WAITING = 20  # requests that wait for an answer; the rest are ignored, and the other node tries again
MAX_WAITING_PER_NODE = 4


class LogResponder:
    """Answers requests of other nodes if this node's operator allows it (`shared`)."""

    def __init__(
        self,
        repositories: Repositories,
        services: NodeServices,
        *,
        shared: bool,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("log-answers", conditions)
        self.repositories = repositories
        self.services = services
        self.shared = shared
        self._slots = asyncio.Semaphore(CONCURRENT_ANSWERS)
        self._waiting: Counter[str] = Counter()  # by requesting node

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:

            def take(batch: Batch) -> None:
                for event in batch:
                    with self._guard.item(event.key):  # a failure must not block other requests
                        request = self._parse_request(event)
                        if (
                            request is not None
                            and self._waiting[request.node] < MAX_WAITING_PER_NODE
                            and self._waiting.total() < MAX_WAITING
                        ):
                            self._waiting[request.node] += 1
                            group.create_task(self._serve(request))

            await follow(
                self.repositories.federation,
                keys.all_peers(),
                take,
                name="log-answers",
                conditions=self._conditions,
                away=OUTAGE_BACKOFF,
            )

    def _parse_request(self, event: Event) -> LogAsk | None:
        """Return another node's request to this one; None for any other event."""
        sender, rest = keys.split_peer(event.key)
        entry = event.entry
        if entry is None or rest[:1] != ["asks"] or len(rest) != 2 or len(entry.value) > MAX_REQUEST_BYTES:
            return None
        try:
            request = LogAsk.model_validate_json(entry.value, context=STORED)
        except ValidationError:
            return None
        node = self.repositories.node
        genuine = (request.node, request.id) == (sender, rest[1])
        return request if genuine and request.of == node and sender != node else None

    async def _serve(self, request: LogAsk) -> None:
        try:
            async with self._slots:
                answer = await self.answer(request)
                store = self.repositories.federation
                lease = await store.grant(LEASE_TTL)
                await store.create(keys.answer(self.repositories.node, answer.id), dump(answer), lease=lease)
            log.info("logs.answered", node=request.node, run=request.run, shared=self.shared)
        except Exception as error:
            expected = isinstance(error, MaoError)
            log.warning("logs.not_answered", node=request.node, error=str(error), exc_info=not expected)
        finally:
            self._waiting -= Counter([request.node])  # also drops nodes at zero

    async def answer(self, request: LogAsk) -> LogAnswer:
        """Return the answer to a request, which may be a refusal."""
        if not self.shared and request.node != self.repositories.node:
            node = self.repositories.node
            why = f"{node} does not share its logs: its operator has to set MAO_SHARE_LOGS=true"
            return LogAnswer(id=request.id, status="refused", detail=why)
        try:
            return await self._read(request)
        except NotFound as error:
            return LogAnswer(id=request.id, status="not-found", detail=error.detail[:2000])
        except MaoError as error:
            return LogAnswer(id=request.id, status="failed", detail=error.detail[:2000])

    async def _read(self, request: LogAsk) -> LogAnswer:
        stored = await self.repositories.runs.get(request.run)
        if stored is None:
            raise NotFound(f"There is no run {request.run!r} on the node {self.repositories.node!r}.")
        names = [step.spec.name for step in stored.record.steps]
        if request.step is not None and request.step not in names:
            raise NotFound(f"The run has no step {request.step!r}; its steps: {', '.join(names)}.")
        index, data = await self.services.log_end(request.run, request.step, MAX_LOG_ANSWER + 1)
        text, cut = last_lines(data, request.tail)
        step = names[index] if index < len(names) else ""
        return shorten_to_fit(LogAnswer(id=request.id, status="ok", step=step, text=text, cut=cut))


def last_lines(data: bytes, lines: int) -> tuple[str, bool]:
    """Return the last lines, at most MAX_LOG_ANSWER bytes, and whether there was more. Pure."""
    end = data[-MAX_LOG_ANSWER:]
    split = end.decode(errors="replace").splitlines(keepends=True)
    return "".join(split[-lines:]), len(end) < len(data) or len(split) > lines


def shorten_to_fit(answer: LogAnswer) -> LogAnswer:
    """Return the answer with its text cut from the start until the record has at most MAX_RECORD_BYTES."""
    while len(dump(answer)) > MAX_RECORD_BYTES:
        answer = answer.model_copy(update={"text": answer.text[len(answer.text) // 2 :], "cut": True})
    return answer


class LogRequests:
    """Requests logs from other nodes and waits for their answers."""

    def __init__(self, repositories: Repositories, queries: PeerQueries, responder: LogResponder) -> None:
        self.repositories = repositories
        self.queries = queries
        self.responder = responder

    async def read(self, node: str, run: str, step: str | None, tail: int) -> LogAnswer:
        """Return the last `tail` lines of a log; wait at most ANSWER_TIMEOUT.

        Raises NotFound, Forbidden (`logs-not-shared`), PeerUnavailable (`node-absent`, `node-silent`).
        """
        own = self.repositories.node
        request = LogAsk(id=secrets.token_hex(8), node=own, of=node, run=run, step=step, tail=tail)
        if node == own:
            return _check_status(await self.responder.answer(request), node)
        state = await self.queries.node(node)
        if not state.present:
            raise PeerUnavailable(
                f"The node {node!r} is not present.",
                code="node-absent",
                next=f"See when it was last seen: maoctl node show {node}",
            )
        if not state.logs_shared:
            raise _not_shared(node, "it does not share its logs")
        return _check_status(await self._exchange(request), node)

    async def _exchange(self, request: LogAsk) -> LogAnswer:
        store = self.repositories.federation
        lease = await store.grant(LEASE_TTL)
        try:
            key = keys.ask(self.repositories.node, request.id)
            written = await store.create(key, dump(request), lease=lease)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._wait_for_answer(request, written or 0)
        except (TimeoutError, Compacted):
            raise PeerUnavailable(
                f"The node {request.of!r} has not answered within {ANSWER_TIMEOUT:g} s.",
                code="node-silent",
                next="Try again; it may be busy or disconnected.",
            ) from None
        finally:
            with suppress(Unavailable):  # the lease expires anyway
                await store.revoke(lease)

    async def _wait_for_answer(self, request: LogAsk, after: int) -> LogAnswer:
        key = keys.answer(request.of, request.id)
        async with aclosing(self.repositories.federation.watch(key, after=after)) as batches:
            async for batch in batches:
                for entry in (event.entry for event in batch if event.key == key):
                    if entry is not None and len(entry.value) <= 2 * MAX_RECORD_BYTES:
                        return _parse_answer(entry.value, request)
        raise TimeoutError


def _parse_answer(value: bytes, request: LogAsk) -> LogAnswer:
    with suppress(ValidationError):
        answer = LogAnswer.model_validate_json(value, context=STORED)
        if answer.id == request.id:
            return answer
    raise PeerUnavailable(
        f"The answer of the node {request.of!r} cannot be read.",
        code="node-answer-unreadable",
        next="Run the same version of MAO on all nodes.",
    )


def _check_status(answer: LogAnswer, node: str) -> LogAnswer:
    """Return the answer if it holds a log; raise the error for its status otherwise."""
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
    raise PeerUnavailable(
        f"The node {node!r} could not read the log: {answer.detail}", next="Try again later."
    )


def _not_shared(node: str, why: str) -> Forbidden:
    return Forbidden(
        f"The node {node!r} does not let others read its logs: {why}.",
        code="logs-not-shared",
        next="Ask its operator to set MAO_SHARE_LOGS=true there.",
    )
