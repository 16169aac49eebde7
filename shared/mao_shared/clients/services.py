"""The async clients with which services call each other."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from mao_shared import request_context
from mao_shared.errors import PeerUnavailable
from mao_shared.models import Dataset, Job, Listing, ResolvedImage, Run
from mao_shared.models.dataset import DatasetStatus
from mao_shared.models.node import EngineInfo

from .responses import check, outgoing_headers, read_record_body, retry_attempts, unreachable

M = TypeVar("M", bound=BaseModel)

CONNECT_TIMEOUT = 2.0  # seconds
PULL_TIMEOUT = 900.0  # seconds; an image may be gigabytes
CLONE_TIMEOUT = 900.0  # seconds; a dataset may be large and its remote slow
Pull = Literal["missing", "always", "never"]
_UNIX = "unix://"
_KEEP = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=30)


def transport_for(url: str, limits: httpx.Limits) -> tuple[str, httpx.AsyncHTTPTransport]:
    """How a service is called: the base URL of its paths, and the way there.

    `unix:///path/registry.sock`: HTTP over that socket, where Host is `localhost`; others stay as they are.
    """
    secure = url.startswith("https:")  # else a TLS context of 1 MB for nothing
    if url.startswith(_UNIX):
        return "http://localhost", httpx.AsyncHTTPTransport(
            uds=url.removeprefix(_UNIX), limits=limits, verify=False
        )
    # No proxy from the environment: one for the internet is not for calls within a node.
    return url, httpx.AsyncHTTPTransport(limits=limits, verify=secure, trust_env=False)


class ServiceClient:
    """Calls one service; problem documents become the exceptions of `errors.py`.

    Args:
        base_url: of the service, such as `http://127.0.0.1:8083` or `unix:///run/mao/runner.sock`.
        timeout: seconds that an answer may take.
        attempts: how often a repeatable call is tried while the service does not answer.
        transport: for tests, such as `httpx.ASGITransport(app)`.
    """

    service = "service"

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10,
        attempts: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._attempts = attempts
        base, way = transport_for(self.base_url, _KEEP)
        self._http = httpx.AsyncClient(
            base_url=base,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            transport=transport or way,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def record(self, method: str, path: str, model: type[M], **options: Any) -> M:
        """The answer as a record. `options` are httpx's: json, params, headers, timeout."""
        return read_record_body(await self._send_with_retries(method, path, options), model)

    async def response(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer as it is, unless it is an error; options as for `record`."""
        response = await self._send_with_retries(method, path, options)
        check(response)
        return response

    async def _send_with_retries(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        async for attempt in retry_attempts(method, self._attempts):
            with attempt:
                return await self._send(method, path, options)
        raise AssertionError("stamina either returns or raises")

    async def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        options = {**options, "headers": {**outgoing_headers(), **options.get("headers", {})}}
        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        request_context.note_stale_answer(response.headers)
        return response

    def _unreachable(self, error: httpx.TransportError) -> PeerUnavailable:
        next_step = f"Run 'maoctl doctor' and look at the log of {self.service}; it may be starting."
        return unreachable(self.service, self.base_url, error, next_step)


class RunnerClient(ServiceClient):
    """What other services ask the runner."""

    service = "runner"

    async def resolve_image(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        """The image pinned by content, pulled if need be. Raises InvalidInput (`image-not-found` …)."""
        body = {"image": image, "pull": pull}
        return await self.record("POST", "/images/resolve", ResolvedImage, json=body, timeout=PULL_TIMEOUT)

    async def log_end(self, run_id: str, step: str | None, most: int) -> tuple[int, bytes]:
        """Index of the step (None: the latest that ran) and the last `most` bytes of its log.

        Raises NotFound (`step-not-found`, `log-not-found` …).
        """
        params = {"end": most} if step is None else {"end": most, "step": step}
        response = await self.response("GET", f"/runs/{quote(run_id, safe='')}/logs", params=params)
        return int(response.headers["X-Mao-Step"]), response.content

    async def engine(self) -> EngineInfo:
        """Raises EngineUnavailable when the engine does not answer."""
        return await self.record("GET", "/engine", EngineInfo)


class SchedulerClient(ServiceClient):
    """What other services ask the scheduler."""

    service = "scheduler"

    async def run(self, run_id: str) -> Run:
        return await self.record("GET", f"/runs/{run_id}", Run)

    async def jobs(
        self, limit: int = 100, cursor: str | None = None, pipeline: str | None = None
    ) -> Listing[Job]:
        """One page of the node's schedules, or what it has of a pipeline's."""
        params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        params |= {"pipeline": pipeline} if pipeline else {}
        return await self.record("GET", "/jobs", Listing[Job], params=params)


class DataClient(ServiceClient):
    """What other services ask the data manager."""

    service = "datamgmt"

    async def ensure_dataset(self, dataset: Dataset) -> DatasetStatus:
        """Clones the dataset here if absent, with this node's branch. May be repeated.

        Raises RemoteUnavailable when the remote does not answer, InvalidInput when it cannot be used.
        """
        path, body = f"/datasets/{dataset.name}", dataset.model_dump(mode="json")
        return await self.record("PUT", path, DatasetStatus, json=body, timeout=CLONE_TIMEOUT)
