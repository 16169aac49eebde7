"""*Agreement*: rounds by node, who differs and how often, a round, and a contested cell explained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse

from mao_gateway.pages.forms import carry_out
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import MaoError
from mao_shared.models.alarm import Spikes
from mao_shared.models.dataset import DatasetStatus
from mao_shared.models.evidence import (
    Audit,
    CellPage,
    DecidedRound,
    Evidence,
    Explanation,
    RankedNode,
    Ranking,
    RoundPage,
)
from mao_shared.models.round import LiveRound, LiveRounds

from .cell import cell_row, view_cell
from .grid import LEGEND, MARKS, Grid, make_grid, open_words

router = page_router()

HERE = "/ui/agreement"
SECTION = "Agreement"
DATASETS_ON_PAGE = 20
ROUNDS_IN_LIST = 14
MAX_LIVE = 100
MAX_FILES = 50
MAX_SPIKES = 20
CELLS_ON_PAGE = 50
RoundCount = Annotated[Literal[30, 90], Query(description="How many of the last rounds")]


@dataclass(frozen=True, slots=True)
class Voter:
    """A node in a round: its cells and how many differ, or in `note` why it has no vote."""

    node: str
    commit: str | None
    cells: int | None
    differing: int | None
    note: str


def list_voters(evidence: Evidence) -> list[Voter]:
    """Return a row for each node of a round, the most deviating first. Pure."""
    rows = []
    for node in evidence.nodes:
        tally, why = evidence.votes.get(node), evidence.abstained.get(node)
        note = "" if why is None else f"abstained: {why.reason}" + (f", {why.detail}" if why.detail else "")
        cells, differing = (tally.cells, tally.differing) if tally else (None, None)
        rows.append(Voter(node, evidence.commits.get(node), cells, differing, note))
    return sorted(rows, key=lambda row: (-(row.differing or 0), row.node))


@dataclass(frozen=True, slots=True)
class RankRow:
    """A node in the ranking; positions of `rate` and `others` on a scale to `top`, in pixels of 120."""

    node: RankedNode
    at: float
    others_at: float | None


def rank_rows(ranking: Ranking) -> tuple[list[RankRow], float]:
    """Return the rows of a ranking, and the rate at the end of their common scale. Pure."""
    rates = [rate for node in ranking.items for rate in (node.rate, node.others or 0.0)]
    top = max(rates, default=0.0) or 0.01
    return [
        RankRow(
            node,
            round(120 * node.rate / top, 1),
            None if node.others is None else round(120 * node.others / top, 1),
        )
        for node in ranking.items
    ], top


@router.get(HERE)
async def list_datasets(
    page: PageDep, cursor: Annotated[str | None, Query(max_length=1000)] = None
) -> HTMLResponse:
    listed, live = await asyncio.gather(
        page.api.listing("/datasets", DatasetStatus, limit=DATASETS_ON_PAGE, cursor=cursor or None),
        page.api.optional(page.api.get("/rounds", LiveRounds, limit=MAX_LIVE)),
    )
    names = [dataset.name for dataset in listed.items]
    grids = await asyncio.gather(*(_grid(page, name, ROUNDS_IN_LIST, live) for name in names))
    found = list(zip(names, grids, strict=True))
    return await page.render(
        "agreement.html",
        section=SECTION,
        title=SECTION,
        datasets=[(name, grid) for name, grid in found if grid.columns],
        without=[name for name, grid in found if not grid.columns],
        cursor=listed.cursor,
        first=not cursor,
    )


async def _grid(page: Page, dataset: str, count: int, live: LiveRounds | None) -> Grid:
    decided = await page.api.optional(
        page.api.get(path_of("datasets", dataset, "rounds"), RoundPage, limit=count)
    )
    return make_grid(dataset, decided.items if decided else [], live.items if live else [], count, page.clock)


@router.get(HERE + "/{dataset}")
async def show_dataset(page: PageDep, dataset: str, rounds: RoundCount = 30) -> HTMLResponse:
    api, path = page.api, path_of("datasets", dataset)
    decided, live, ranking, spikes = await asyncio.gather(
        api.get(f"{path}/rounds", RoundPage, limit=rounds),
        api.optional(api.get("/rounds", LiveRounds, dataset=dataset, limit=MAX_LIVE)),
        api.optional(api.get(f"{path}/ranking", Ranking, rounds=rounds)),
        api.optional(api.get(f"{path}/spikes", Spikes, rounds=rounds)),
    )
    grid = make_grid(dataset, decided.items, live.items if live else [], rounds, page.clock)
    ranked, top = rank_rows(ranking) if ranking else ([], 0.01)
    return await page.render(
        "agreement_dataset.html",
        section=SECTION,
        title=f"Agreement on {dataset}",
        dataset=dataset,
        rounds=rounds,
        grid=grid,
        legend=[(state, *MARKS[state]) for state in LEGEND],
        open=[(found, open_words(found)) for found in _newest(grid.open)],
        waiting=live.waiting if live else 0,
        strays=decided.strays.fault if decided.strays else None,
        warnings=decided.items[0].warnings if decided.items else [],
        ranked=ranked,
        top=top,
        counted=ranking.rounds if ranking else 0,
        spikes=spikes.items[:MAX_SPIKES] if spikes else [],
        metrics=spikes.metrics if spikes else [],
    )


def _newest(rounds: Sequence[LiveRound], most: int = 3) -> list[LiveRound]:
    return sorted(rounds, key=lambda found: (found.tick, found.id), reverse=True)[:most]


@router.get(HERE + "/{dataset}/{round_id}")
async def show_round(
    page: PageDep,
    dataset: str,
    round_id: str,
    file: Annotated[str, Query(max_length=4096)] = "",
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> HTMLResponse:
    path = path_of("datasets", dataset, "rounds", round_id)
    decided, cells = await asyncio.gather(
        page.api.get(path, DecidedRound),
        page.api.get(
            f"{path}/cells", CellPage, limit=CELLS_ON_PAGE, cursor=cursor or None, file=file or None
        ),
    )
    evidence = decided.evidence
    return await page.render(
        "agreement_round.html",
        section=SECTION,
        title=f"Round {evidence.round} of {dataset}",
        dataset=dataset,
        decided=decided,
        evidence=evidence,
        needed=evidence.definition.needed(len(evidence.nodes)),
        voters=list_voters(evidence),
        files=evidence.files[:MAX_FILES],
        more_files=len(evidence.files) - MAX_FILES,
        file=file,
        cells=[cell_row(cell) for cell in cells.items],
        cursor=cells.cursor,
        first=not cursor,
        address=path_of("ui", "agreement", dataset, evidence.round),
        json_address=path_of("datasets", dataset, "rounds", evidence.round),
    )


@router.get(HERE + "/{dataset}/{round_id}/cell")
async def show_cell(
    page: PageDep,
    dataset: str,
    round_id: str,
    file: Annotated[str, Query(max_length=4096)],
    key: Annotated[str, Query(max_length=10_000)] = "",
    field: Annotated[str, Query(max_length=10_000)] = "",
) -> HTMLResponse:
    path = path_of("datasets", dataset, "rounds", round_id)
    found, decided = await asyncio.gather(
        page.api.get(f"{path}/cell", Explanation, file=file, key=key, field=field),
        page.api.get(path, DecidedRound),
    )
    evidence = decided.evidence
    return await page.render(
        "agreement_cell.html",
        section=SECTION,
        title=f"A value of {dataset}",
        dataset=dataset,
        found=found,
        cell=view_cell(dataset, found, evidence),
        evidence=evidence,
        asked=decided.evidence.round,
        needed=evidence.definition.needed(len(evidence.nodes)),
        address=path_of("ui", "agreement", dataset, found.round),
    )


@router.post(HERE + "/{dataset}/{round_id}/audit")
async def audit_round(page: PageDep, dataset: str, round_id: str) -> RedirectResponse:
    async def audit() -> None:
        path = path_of("datasets", dataset, "rounds", round_id, "audit")
        found = await page.api.get_slowly(path, Audit)
        if not found.ok:
            what = "reproduced" if found.commit == found.recomputed_commit else "not reproduced"
            raise MaoError(
                f"The round is {what}, but: {'; '.join(found.faults) or 'the commits differ'}.",
                next=f"See the commits: maoctl vote audit {dataset} {round_id}",
            )

    here = path_of("ui", "agreement", dataset, round_id)
    done = "The round was computed again from its nodes' commits: the same commit came out."
    return await carry_out(messages, audit(), done=done, then=here, otherwise=here)
