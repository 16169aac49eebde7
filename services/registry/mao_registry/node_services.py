"""The registry's calls to this node's runner and data manager."""

from __future__ import annotations

from typing import Protocol

from mao_shared.clients import DataClient, RunnerClient
from mao_shared.models import Dataset, ResolvedImage
from mao_shared.models.dataset import BareRepository
from mao_shared.models.node import EngineInfo
from mao_shared.models.tool import Pull


class NodeServices(Protocol):
    """Calls to other services. They raise the service's error, PeerUnavailable if it does not answer."""

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        """Pin an image by its content. Raises InvalidInput (`image-not-found` and the like)."""
        ...

    async def prepare_dataset(self, dataset: Dataset) -> None:
        """Clone the dataset on this node and create the node's branch, unless they exist.

        Raises InvalidInput (`dataset-unreachable` and the like).
        """
        ...

    async def check_remote(self, master: str) -> None:
        """Check that a repository can be a dataset's remote.

        Raises InvalidInput (`dataset-unreachable` and the like), RemoteUnavailable.
        """
        ...

    async def make_repository(self, name: str) -> BareRepository:
        """Make an empty repository on this node for a dataset, or return the one that the last attempt made.

        Raises AlreadyExists if another one is there.
        """
        ...

    async def engine(self) -> EngineInfo: ...

    async def secret_names(self) -> list[str]: ...

    async def log_end(self, run_id: str, step: str | None, max_bytes: int) -> tuple[int, bytes]:
        """Return the index of the step (None: the latest that ran) and the end of its log.

        The log is cut to its last `max_bytes` bytes. Raises NotFound.
        """
        ...


class HttpNodeServices:
    """Calls the services over HTTP."""

    def __init__(self, runner: RunnerClient, data: DataClient) -> None:
        self.runner = runner
        self.data = data

    async def resolve_image(self, image: str, pull: Pull) -> ResolvedImage:
        return await self.runner.resolve_image(image, pull)

    async def prepare_dataset(self, dataset: Dataset) -> None:
        await self.data.ensure_dataset(dataset)

    async def check_remote(self, master: str) -> None:
        await self.data.check_remote(master)

    async def make_repository(self, name: str) -> BareRepository:
        return await self.data.make_repository(name, f"catalogue-{name}")

    async def engine(self) -> EngineInfo:
        return await self.runner.engine()

    async def secret_names(self) -> list[str]:
        return await self.runner.secret_names()

    async def log_end(self, run_id: str, step: str | None, max_bytes: int) -> tuple[int, bytes]:
        return await self.runner.log_end(run_id, step, max_bytes)
