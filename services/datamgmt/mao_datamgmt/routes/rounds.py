"""Rounds: as they stand now, and those that made a dataset's ground truth.

The rounds that made a dataset's ground truth: what was decided, from what, and whether it repeats.

The rounds of all datasets as they stand in the federation's store, also those that are not decided.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query

from mao_datamgmt.context import Context
from mao_datamgmt.manager import DataManager
from mao_datamgmt.monitoring.spikes import find_spikes
from mao_datamgmt.rounds.reporting import PhaseFilter
from mao_git import Clone
from mao_shared import keys
from mao_shared.errors import NotFound, Unavailable
from mao_shared.models import GROUND_TRUTH, Name
from mao_shared.models.alarm import Spikes
from mao_shared.models.evidence import Audit, CellPage, DecidedRound, Explanation, Ranking, RoundPage
from mao_shared.models.round import LiveRounds
from mao_shared.web.dependencies import Paging
from mao_vote import (
    audit_ground_truth,
    explain_ground_truth,
    find_round,
    find_unattested,
    list_rounds,
    page_of_cells,
    rank_nodes,
    walk_rounds,
)

from .datasets import DatasetName, TheManager

router = APIRouter(tags=["rounds"])

LATEST = "latest"

RoundId = Annotated[
    str,
    Path(
        alias="round",
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Id of the round, its beginning, or 'latest'",
        examples=["20260131T120000Z-daily-collect"],
    ),
]

File = Annotated[str, Query(max_length=4096, description="Path of the file", examples=["results.csv"])]


def _truth(context: Context, name: str) -> tuple[Clone, str | None]:
    clone = Clone.open(context.data.clone(name))
    return clone, clone.latest_tip(GROUND_TRUTH)


def _found(context: Context, name: str, round_id: str) -> tuple[Clone, str, DecidedRound]:
    """Raises NotFound (`round-not-found`), before the first round with the way to those that are open."""
    clone, tip = _truth(context, name)
    if tip is None or next(walk_rounds(clone, tip), None) is None:
        raise NotFound(
            f"No round of {name} is decided yet.",
            code="round-not-found",
            next=f"See those that are open: maoctl vote status {name}",
        )
    return clone, tip, find_round(clone, tip, None if round_id == LATEST else round_id)


@router.get(
    "/datasets/{name}/rounds",
    name="rounds.list",
    summary="List the decided rounds of a dataset, the newest first",
)
async def list_decided(manager: TheManager, name: DatasetName, page: Paging) -> RoundPage:
    def answer(context: Context) -> RoundPage:
        clone, tip = _truth(context, name)
        if tip is None:
            return RoundPage(items=[])
        found = list_rounds(clone, tip, page.limit, page.cursor)
        found.strays = None if page.cursor else find_unattested(clone, tip)
        return found

    return await manager.ask(answer)


@router.get(
    "/datasets/{name}/rounds/{round}",
    name="rounds.show",
    summary="Show a round's evidence: what went in, what came out, and how each file was decided",
)
async def show(manager: TheManager, name: DatasetName, round_id: RoundId) -> DecidedRound:
    return await manager.ask(lambda context: _found(context, name, round_id)[2])


@router.get(
    "/datasets/{name}/rounds/{round}/cells",
    name="rounds.cells",
    summary="List the cells over which nodes differed, with every node's value",
)
async def cells(
    manager: TheManager,
    name: DatasetName,
    round_id: RoundId,
    page: Paging,
    file: Annotated[str | None, Query(max_length=4096, description="Only of this file")] = None,
) -> CellPage:
    def answer(context: Context) -> CellPage:
        clone, _, decided = _found(context, name, round_id)
        return page_of_cells(clone, decided, file, page.limit, page.cursor)

    return await manager.ask(answer)


@router.get(
    "/datasets/{name}/rounds/{round}/cell",
    name="rounds.cell",
    summary="Explain one value of the ground truth: what every node said and by what rule it was decided",
)
async def cell(
    manager: TheManager,
    name: DatasetName,
    round_id: RoundId,
    file: File,
    key: Annotated[
        str, Query(max_length=10_000, description="The record's key; of several columns joined by commas")
    ] = "",
    field: Annotated[str, Query(max_length=10_000, description="Name of the field")] = "",
) -> Explanation:
    def answer(context: Context) -> Explanation:
        return explain_ground_truth(*_found(context, name, round_id), file, key, field)

    return await manager.ask(answer)


@router.get(
    "/datasets/{name}/rounds/{round}/audit",
    name="rounds.audit",
    summary="Compute a round again from the commits that it pinned, and compare",
)
async def audit_round(manager: TheManager, name: DatasetName, round_id: RoundId) -> Audit:
    return await manager.ask(lambda context: audit_ground_truth(*_found(context, name, round_id)))


@router.get(
    "/datasets/{name}/ranking",
    name="rounds.ranking",
    summary="Rank the nodes by how unusually often they differ from what was decided",
)
async def ranking(
    manager: TheManager,
    name: DatasetName,
    rounds: Annotated[int, Query(ge=1, le=1000, description="How many of the last rounds count")] = 50,
) -> Ranking:
    def answer(context: Context) -> Ranking:
        clone, tip = _truth(context, name)
        return Ranking(rounds=0, items=[]) if tip is None else rank_nodes(clone, tip, rounds)

    return await manager.ask(answer)


@router.get(
    "/datasets/{name}/spikes",
    name="rounds.spikes",
    summary="List spikes in the control metrics of the last rounds: one node's, or everybody's",
)
async def spikes(
    manager: TheManager,
    name: DatasetName,
    rounds: Annotated[int, Query(ge=1, le=1000, description="How many of the last rounds count")] = 100,
) -> Spikes:
    """The metrics are those of this node's enrolments that write the dataset."""
    metrics = await manager.metrics_of(name)

    def answer(context: Context) -> Spikes:
        clone, tip = _truth(context, name)
        if tip is None:
            return Spikes(rounds=0, metrics=[each.name for each in metrics], items=[])
        return find_spikes(clone, tip, metrics, rounds)

    return await manager.ask(answer)


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
    """Rounds are held in memory; this read notices that the federation is away."""
    with suppress(Unavailable):
        await manager.rounds.mirror.records.store.get(keys.federation())
