"""What the registry asks of the node's other services; the app connects it to their clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mao_shared.clients import DataClient, RunnerClient
from mao_shared.models import Dataset, ResolvedImage
from mao_shared.models.models_pipeline import Pull


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the runner offers: steps at a time, cores, and memory in bytes."""

    slots: int
    cpus: int
    memory: int


class Peers(Protocol):
    """Raises what the peer answered as its exception, PeerUnavailable when it does not answer."""

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        """The image pinned by content; InvalidInput with the code `image-not-found` and the like."""
        ...

    async def prepare_dataset(self, dataset: Dataset) -> None:
        """Clones the dataset on this node and makes the node's branch, both only where absent.

        Raises InvalidInput with the code `dataset-unreachable` and the like.
        """
        ...

    async def capacity(self) -> Capacity: ...

    async def log_end(self, run_id: str, step: str | None, most: int) -> tuple[int, bytes]:
        """Index of a step (None: the latest that ran) and the last `most` bytes of its log; or NotFound."""
        ...


class ServicePeers:
    """Peers over HTTP."""

    def __init__(self, runner: RunnerClient, data: DataClient) -> None:
        self.runner = runner
        self.data = data

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        return await self.runner.resolve_image(image, pull)

    async def prepare_dataset(self, dataset: Dataset) -> None:
        await self.data.ensure_dataset(dataset)

    async def capacity(self) -> Capacity:
        engine = await self.runner.engine()
        return Capacity(slots=engine.slots, cpus=engine.cpus, memory=engine.memory)

    async def log_end(self, run_id: str, step: str | None, most: int) -> tuple[int, bytes]:
        return await self.runner.log_end(run_id, step, most)
