"""What the registry asks of this node's runner and data manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mao_shared.clients import DataClient, RunnerClient
from mao_shared.models import Dataset, ResolvedImage
from mao_shared.models.pipeline import Pull


@dataclass(frozen=True, slots=True)
class EngineCapacity:
    """What the runner offers: steps at a time, cores, and memory in bytes."""

    slots: int
    cpus: int
    memory: int


class NodeServices(Protocol):
    """Raises what the peer answered as its exception, PeerUnavailable when it does not answer."""

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        """The image pinned by content; InvalidInput with the code `image-not-found` and the like."""
        ...

    async def prepare_dataset(self, dataset: Dataset) -> None:
        """Clones the dataset on this node and makes the node's branch, both only where absent.

        Raises InvalidInput with the code `dataset-unreachable` and the like.
        """
        ...

    async def capacity(self) -> EngineCapacity: ...

    async def log_end(self, run_id: str, step: str | None, most: int) -> tuple[int, bytes]:
        """Index of a step (None: the latest that ran) and the last `most` bytes of its log; or NotFound."""
        ...


class HttpNodeServices:
    """Peers over HTTP."""

    def __init__(self, runner: RunnerClient, data: DataClient) -> None:
        self.runner = runner
        self.data = data

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        return await self.runner.resolve_image(image, pull)

    async def prepare_dataset(self, dataset: Dataset) -> None:
        await self.data.ensure_dataset(dataset)

    async def capacity(self) -> EngineCapacity:
        engine = await self.runner.engine()
        return EngineCapacity(slots=engine.slots, cpus=engine.cpus, memory=engine.memory)

    async def log_end(self, run_id: str, step: str | None, most: int) -> tuple[int, bytes]:
        return await self.runner.log_end(run_id, step, most)
