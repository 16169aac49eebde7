"""The rounds of all datasets as they stand in the federation's store, also those that are not decided."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query

from mao_datamgmt.manager import DataManager
from mao_datamgmt.rounds.reporting import PhaseFilter
from mao_shared import keys
from mao_shared.errors import Unavailable
from mao_shared.models import Listing, Name
from mao_shared.models.round import LiveRound
from mao_shared.web.dependencies import Paging

from .datasets import TheManager

router = APIRouter(tags=["rounds"])


class LiveRounds(Listing[LiveRound]):
    """`waiting`: what this node's ticks of the dataset, or of all, still have to tell the federation."""

    waiting: int


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
    phase: Annotated[
        PhaseFilter | None, Query(description="Only those of a phase; 'live': not ended")
    ] = None,
) -> LiveRounds:
    await _note_age(manager)
    found = manager.rounds.live(dataset, phase, page.limit, page.cursor)
    waiting = [each for each in manager.rounds.announcer.waiting if dataset in (None, each.dataset)]
    return LiveRounds(items=found.items, cursor=found.cursor, waiting=len(waiting))


async def _note_age(manager: DataManager) -> None:
    """Rounds are held in memory, so nothing is read that would notice that the federation is away."""
    with suppress(Unavailable):
        await manager.rounds.mirror.records.store.get(keys.federation())
