"""Calls to the runner."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel

from mao_shared.models import ResolvedImage

from .services import ServiceClient

Pull = Literal["missing", "always", "never"]
PULL_TIMEOUT = 900.0  # seconds; an image may be gigabytes


class EngineInfo(BaseModel):
    """The container engine and what it may use. `memory` in bytes."""

    version: str
    slots: int
    cpus: int
    memory: int
    running: int


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
