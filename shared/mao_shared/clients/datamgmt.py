"""Calls to the data manager."""

from __future__ import annotations

from typing import Any

from mao_shared.models import Dataset

from .services import ServiceClient

CLONE_TIMEOUT = 900.0  # seconds; a dataset may be large and its remote slow


class DataClient(ServiceClient):
    """What other services ask the data manager."""

    service = "datamgmt"

    async def ensure_dataset(self, dataset: Dataset) -> dict[str, Any]:
        """Clones the dataset here if absent, with this node's branch; its status. May be repeated.

        Raises RemoteUnavailable when the remote does not answer, InvalidInput when it cannot be used.
        """
        body = dataset.model_dump(mode="json")
        answer = await self.json("PUT", f"/datasets/{dataset.name}", json=body, timeout=CLONE_TIMEOUT)
        return dict(answer)
