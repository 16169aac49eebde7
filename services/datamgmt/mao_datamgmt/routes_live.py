"""The rounds of all datasets as they stand in the federation's store, also those that are not decided."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from mao_shared.models import Listing, Name
from mao_shared.web.http import Paging

from .rounds.live import Asked, LiveRound
from .routes import TheManager

router = APIRouter(tags=["rounds"])


@router.get(
    "/rounds",
    name="rounds.live",
    summary="List rounds as they stand now, the newest first",
    description="As this node last saw them. Those that were decided long ago are listed with their dataset.",
)
async def list_live(
    manager: TheManager,
    page: Paging,
    dataset: Annotated[Name | None, Query(description="Only this dataset's")] = None,
    phase: Annotated[Asked | None, Query(description="Only those of a phase; 'live': not ended")] = None,
) -> Listing[LiveRound]:
    return manager.rounds.live(dataset, phase, page.limit, page.cursor)
