"""`/rounds`, live from the federation store, and the decided rounds of each dataset."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import StringConstraints

from mao_datamgmt.context import Context
from mao_datamgmt.monitoring.spikes import find_spikes
from mao_datamgmt.rounds.reporting import PhaseFilter
from mao_git import Clone
from mao_shared import keys
from mao_shared.errors import NotFound, Unavailable
from mao_shared.models import GROUND_TRUTH, Name
from mao_shared.models.alarm import Spikes
from mao_shared.models.evidence import Audit, CellPage, DecidedRound, Explanation, Ranking, RoundPage
from mao_shared.models.round import LiveRounds
from mao_shared.models.schema import MAX_SCHEMA_FILES, Schema
from mao_shared.web.dependencies import Paging
from mao_vote import (
    audit_ground_truth,
    describe_schema,
    explain_ground_truth,
    find_round,
    find_unattested,
    list_record_files,
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


def _open_truth(context: Context, name: str) -> tuple[Clone, str | None]:
    clone = Clone.open(context.data.clone(name))
    return clone, clone.latest_tip(GROUND_TRUTH)


def _find_decided(context: Context, name: str, round_id: str) -> tuple[Clone, str, DecidedRound]:
    """Return the clone, the tip of ground truth and a round. Raises NotFound (`round-not-found`)."""
    clone, tip = _open_truth(context, name)
    if tip is None or next(walk_rounds(clone, tip), None) is None:
        raise NotFound(
            f"No round of {name} is decided yet.",
            code="round-not-found",
            next=f"List the open rounds: maoctl vote status {name}",
        )
    return clone, tip, find_round(clone, tip, None if round_id == LATEST else round_id)


@router.get(
    "/datasets/{name}/rounds",
    name="rounds.list",
    summary="List the decided rounds of a dataset, the newest first",
)
async def list_decided(manager: TheManager, name: DatasetName, page: Paging) -> RoundPage:
    def run_query(context: Context) -> RoundPage:
        clone, tip = _open_truth(context, name)
        if tip is None:
            return RoundPage(items=[])
        found = list_rounds(clone, tip, page.limit, page.cursor)
        found.strays = None if page.cursor else find_unattested(clone, tip)
        return found

    return await manager.query(run_query)


@router.get(
    "/datasets/{name}/rounds/{round}",
    name="rounds.show",
    summary="Show a round's evidence: its inputs, its result, and how each file was decided",
)
async def show(manager: TheManager, name: DatasetName, round_id: RoundId) -> DecidedRound:
    return await manager.query(lambda context: _find_decided(context, name, round_id)[2])


@router.get(
    "/datasets/{name}/rounds/{round}/cells",
    name="rounds.cells",
    summary="List the cells in which the nodes differed, with each node's value",
)
async def cells(
    manager: TheManager,
    name: DatasetName,
    round_id: RoundId,
    page: Paging,
    file: Annotated[str | None, Query(max_length=4096, description="Only of this file")] = None,
    contested: Annotated[bool, Query(description="Only cells in which no value has a majority")] = False,
) -> CellPage:
    def run_query(context: Context) -> CellPage:
        clone, _, decided = _find_decided(context, name, round_id)
        return page_of_cells(clone, decided, file, page.limit, page.cursor, contested=contested)

    return await manager.query(run_query)


@router.get(
    "/datasets/{name}/rounds/{round}/cell",
    name="rounds.cell",
    summary="Explain one value of the ground truth: each node's value, and the rule that decided",
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
    def run_query(context: Context) -> Explanation:
        return explain_ground_truth(*_find_decided(context, name, round_id), file, key, field)

    return await manager.query(run_query)


@router.get(
    "/datasets/{name}/rounds/{round}/audit",
    name="rounds.audit",
    summary="Recompute a round from its pinned commits, and compare the results",
)
async def audit_round(manager: TheManager, name: DatasetName, round_id: RoundId) -> Audit:
    return await manager.query(lambda context: audit_ground_truth(*_find_decided(context, name, round_id)))


@router.get(
    "/datasets/{name}/rounds/{round}/schema",
    name="rounds.schema",
    summary="Describe record files of a round: their keys, and what their fields are",
)
async def schema(
    manager: TheManager,
    name: DatasetName,
    round_id: RoundId,
    file: Annotated[
        list[Annotated[str, StringConstraints(max_length=4096)]] | None,
        Query(max_length=MAX_SCHEMA_FILES, description="Paths of files; without any, all record files"),
    ] = None,
) -> Schema:
    """Fields are described as by the definition of the round, from the values in the commits of its nodes."""

    def run_query(context: Context) -> Schema:
        clone, _, decided = _find_decided(context, name, round_id)
        commits, definition = decided.evidence.commits, decided.evidence.definition
        paths = file or list_record_files(clone, [decided.commit], definition)
        return describe_schema(clone, commits, definition, paths, decided.evidence.base)

    return await manager.query(run_query)


@router.get(
    "/datasets/{name}/ranking",
    name="rounds.ranking",
    summary="Rank the nodes by how unusually often they differ from the decided values",
)
async def ranking(
    manager: TheManager,
    name: DatasetName,
    rounds: Annotated[int, Query(ge=1, le=1000, description="How many of the last rounds count")] = 50,
) -> Ranking:
    def run_query(context: Context) -> Ranking:
        clone, tip = _open_truth(context, name)
        return Ranking(rounds=0, items=[]) if tip is None else rank_nodes(clone, tip, rounds)

    return await manager.query(run_query)


@router.get(
    "/datasets/{name}/spikes",
    name="rounds.spikes",
    summary="List spikes in the control metrics of the last rounds, of one node or of all",
)
async def spikes(
    manager: TheManager,
    name: DatasetName,
    rounds: Annotated[int, Query(ge=1, le=1000, description="How many of the last rounds count")] = 100,
) -> Spikes:
    """The metrics are those of this node's enrolments that write the dataset."""
    metrics = await manager.metrics_of(name)

    def run_query(context: Context) -> Spikes:
        clone, tip = _open_truth(context, name)
        if tip is None:
            return Spikes(rounds=0, metrics=[metric.name for metric in metrics], items=[])
        return find_spikes(clone, tip, metrics, rounds)

    return await manager.query(run_query)


@router.get(
    "/rounds",
    name="rounds.live",
    summary="List rounds as they stand now, the newest first",
    description="As this node last saw them. Rounds decided long ago are listed with their dataset.",
)
async def list_live(
    manager: TheManager,
    page: Paging,
    dataset: Annotated[Name | None, Query(description="Only this dataset's")] = None,
    phase: Annotated[
        PhaseFilter | None, Query(description="Only those of a phase; 'live': not ended")
    ] = None,
) -> LiveRounds:
    with suppress(Unavailable):  # rounds are kept in memory; this read detects an unreachable federation
        await manager.rounds.mirror.records.store.get(keys.federation())
    found = manager.rounds.live(dataset, phase, page.limit, page.cursor)
    waiting = [round_ for round_ in manager.rounds.announcer.waiting if dataset in (None, round_.dataset)]
    return LiveRounds(items=found.items, cursor=found.cursor, waiting=len(waiting))
