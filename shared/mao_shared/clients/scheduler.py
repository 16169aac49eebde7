"""Calls to the scheduler."""

from __future__ import annotations

from mao_shared.models import Job, Listing, Run

from .services import ServiceClient


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
