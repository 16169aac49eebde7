"""Async clients for calls between services."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from mao_shared import request_context
from mao_shared.models import Dataset, Job, Listing, ResolvedImage, Run
from mao_shared.models.dataset import BareRepository, BareRequest, DatasetStatus
from mao_shared.models.external import RemoteCheck, RemoteState
from mao_shared.models.node import EngineInfo
from mao_shared.models.secret import SecretState
from mao_shared.models.tool import ImageRequest, Pull

from .responses import (
    KEEPALIVE_SECONDS,
    check,
    outgoing_headers,
    read_record_body,
    request_body,
    retry_attempts,
    unreachable,
)

M = TypeVar("M", bound=BaseModel)

CONNECT_TIMEOUT = 2.0  # seconds
PULL_TIMEOUT = 900.0  # seconds; an image may be gigabytes
CHECK_TIMEOUT = 120.0  # seconds; git waits for a remote that does not answer
CLONE_TIMEOUT = 900.0  # seconds; a dataset may be large and its remote slow
_UNIX = "unix://"
_KEEPALIVE = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=KEEPALIVE_SECONDS)


def transport_for(url: str, limits: httpx.Limits) -> tuple[str, httpx.AsyncHTTPTransport]:
    """Return the base URL and the transport for a service's address.

    `unix:///path/registry.sock`: HTTP over that socket, with Host `localhost`.
    """
    secure = url.startswith("https:")  # otherwise no TLS context, which takes 1 MB
    if url.startswith(_UNIX):
        return "http://localhost", httpx.AsyncHTTPTransport(
            uds=url.removeprefix(_UNIX), limits=limits, verify=False
        )
    # A proxy of the environment is for the internet, not for calls within a node.
    return url, httpx.AsyncHTTPTransport(limits=limits, verify=secure, trust_env=False)


class ServiceClient:
    """Client of one service; problem documents are raised as the exceptions of `errors.py`.

    Args:
        base_url: of the service, such as `http://127.0.0.1:8083` or `unix:///run/mao/runner.sock`.
        timeout: seconds for a response.
        attempts: how often an idempotent call is sent while the service does not answer.
        transport: for tests, such as `httpx.ASGITransport(app)`.
    """

    service: ClassVar[str] = "service"

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
        base, default_transport = transport_for(self.base_url, _KEEPALIVE)
        self._http = httpx.AsyncClient(
            base_url=base,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            transport=transport or default_transport,
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
        """Return the response as a record. `options` are httpx's: json, params, headers, timeout."""
        return read_record_body(await self._send(method, path, options), model)

    async def response(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the response; raise the exception that an error becomes. Options as for `record`."""
        response = await self._send(method, path, options)
        check(response)
        return response

    async def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        """Send a request; an idempotent one is retried while the service does not answer."""
        options = {**options, "headers": {**outgoing_headers(), **options.get("headers", {})}}
        async for attempt in retry_attempts(method, self._attempts):
            with attempt:
                try:
                    response = await self._http.request(method, path, **options)
                except httpx.TransportError as error:
                    hint = f"Run 'maoctl doctor' and look at the log of {self.service}; it may be starting."
                    raise unreachable(self.service, self.base_url, error, hint) from error
        request_context.note_stale_answer(response.headers)
        return response


class RunnerClient(ServiceClient):
    """Calls of other services to the runner."""

    service = "runner"

    async def resolve_image(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        """Pin an image by digest, pulling it if necessary. Raises InvalidInput (`image-not-found` …)."""
        body = request_body(ImageRequest, image=image, pull=pull)
        return await self.record("POST", "/images/resolve", ResolvedImage, json=body, timeout=PULL_TIMEOUT)

    async def log_end(self, run_id: str, step: str | None, max_bytes: int) -> tuple[int, bytes]:
        """Return the index of a step (None: the latest that ran) and the last `max_bytes` of its log.

        Raises NotFound (`step-not-found`, `log-not-found` …).
        """
        params = {"end": max_bytes} if step is None else {"end": max_bytes, "step": step}
        response = await self.response("GET", f"/runs/{quote(run_id, safe='')}/logs", params=params)
        return int(response.headers["X-Mao-Step"]), response.content

    async def secret_names(self) -> list[str]:
        """Return the names of the node's secrets."""
        found = await self.record("GET", "/secrets", Listing[SecretState])
        return [state.name for state in found.items]

    async def engine(self) -> EngineInfo:
        """Return the engine's capacity. Raises EngineUnavailable if it does not answer."""
        return await self.record("GET", "/engine", EngineInfo)


class SchedulerClient(ServiceClient):
    """Calls of other services to the scheduler."""

    service = "scheduler"

    async def run(self, run_id: str) -> Run:
        return await self.record("GET", f"/runs/{run_id}", Run)

    async def jobs(
        self, limit: int = 100, cursor: str | None = None, pipeline: str | None = None
    ) -> Listing[Job]:
        """Return one page of the node's schedules, or of one pipeline's."""
        params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        params |= {"pipeline": pipeline} if pipeline else {}
        return await self.record("GET", "/jobs", Listing[Job], params=params)


class DataClient(ServiceClient):
    """Calls of other services to the data manager."""

    service = "datamgmt"

    async def ensure_dataset(self, dataset: Dataset) -> DatasetStatus:
        """Clone a dataset to this node with the node's branch, unless it is there. Idempotent.

        Raises RemoteUnavailable if the remote does not answer, InvalidInput if it cannot be used.
        """
        path, body = f"/datasets/{dataset.name}", dataset.model_dump(mode="json")
        return await self.record("PUT", path, DatasetStatus, json=body, timeout=CLONE_TIMEOUT)

    async def check_remote(self, master: str) -> RemoteState:
        """Check that a repository can be a dataset's remote.

        Raises RemoteUnavailable if it does not answer, InvalidInput if it cannot be used.
        """
        body = request_body(RemoteCheck, master=master)
        return await self.record("POST", "/remotes/check", RemoteState, json=body, timeout=CHECK_TIMEOUT)

    async def make_repository(self, name: str, idempotency_key: str) -> BareRepository:
        """Create an empty repository on this node. Raises AlreadyExists unless the key's first call did."""
        body = request_body(BareRequest, name=name)
        headers = {"Idempotency-Key": idempotency_key}
        return await self.record("POST", "/bare-repo/init", BareRepository, json=body, headers=headers)
