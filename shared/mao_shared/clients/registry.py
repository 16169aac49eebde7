"""Calls to the registry."""

from __future__ import annotations

from mao_shared.models import Dataset, Enrolment, Pipeline, Tool

from .services import ServiceClient


class RegistryClient(ServiceClient):
    """What other services ask the registry."""

    service = "registry"

    async def tool(self, name: str) -> Tool:
        return await self.record("GET", f"/registry/tools/{name}", Tool)

    async def dataset(self, name: str) -> Dataset:
        return await self.record("GET", f"/registry/datasets/{name}", Dataset)

    async def pipeline(self, name: str) -> Pipeline:
        return await self.record("GET", f"/registry/pipelines/{name}", Pipeline)

    async def enrolment(self, pipeline: str) -> Enrolment:
        """Raises NotFound when this node has not enrolled."""
        return await self.record("GET", f"/enrolments/{pipeline}", Enrolment)
