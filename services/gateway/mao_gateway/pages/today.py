"""*Today*: did the data come in, do the nodes agree, is it safe at the remote; then what needs a person.

Below, a strip of the last ticks for each pipeline and node. With many of them, those that are well are folded
into a line for each pipeline, and then into one line for all: a page stays below 300 kB with 200 pipelines on
five nodes, and shows what is not well first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from mao_shared.models import Alarm, Listing, NodePart, PipelineState, Series, TickStrip
from mao_shared.models.alarm import Point
from mao_shared.models.dataset import DatasetStatus
from mao_shared.models.round import LiveRound, LiveRounds

from . import formats, marks
from .first_run import steps
from .node_api import NodeApi, path_of
from .pipelines.view import Change, read_changes
from .plots import PlotPoint, sparkline
from .site import Page, PageDep, page_router

router = page_router()
MAX_UNFOLDED = 40  # rows; with more, rows that are well are folded
MAX_ROWS = 50  # rows of one page that are not well
MAX_PLOTS = 20  # rows of this node that show the line of a control metric
CHECKED_TICKS = 10  # a row with an exception among so many newest ticks is not well
NOT_HEARD_AFTER = timedelta(minutes=5)  # after a node's next tick
PEERS_SECONDS = 5.0  # that pages share what other nodes say
SHARED_SECONDS = 10.0  # that pages share what changes seldom: definitions and datasets
BAD = frozenset("flmq?")
MAX_NEEDS = 10  # of each kind; a phone shows about two of them at a time
MAX_CHANGES = 3  # of a pending change


@dataclass(frozen=True, slots=True)
class Row:
    """A pipeline on a node. `heard`: False if its next tick has passed and it has said nothing since."""

    strip: TickStrip
    own: bool
    heard: bool = True
    series: Series | None = None

    @property
    def is_well(self) -> bool:
        newest = self.strip.marks[-CHECKED_TICKS:]
        return self.heard and not BAD.intersection(newest)


@dataclass(frozen=True, slots=True)
class Group:
    """A pipeline with the rows that are shown. `well`: how many more are well and folded."""

    pipeline: str
    rows: Sequence[Row]
    well: int = 0
    schedules: Sequence[str] = ()
    datasets: Sequence[str] = ()
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """The table of strips. `folded`: pipelines whose rows are all well; `hidden`: rows beyond MAX_ROWS."""

    groups: Sequence[Group]
    folded: Sequence[str]
    pipelines: int
    rows: int
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """The three answers of the page's top; each state is `ok`, `warn` or `off`."""

    ticks: Counter[str]
    rounds: Counter[str]
    unpushed: int
    unpushed_in: Sequence[str] = ()
    reasons: Sequence[str] = ()
    known: Mapping[str, bool] = field(default_factory=dict)


def make_rows(
    own: Iterable[TickStrip], others: Iterable[TickStrip], nodes: Mapping[str, NodePart], page: Page
) -> list[Row]:
    """Return a row for each strip, by pipeline, this node first."""
    rows = [Row(strip, own=True) for strip in own]
    now = page.clock.now
    for strip in others:
        node = nodes.get(strip.node)
        overdue = strip.next_tick is not None and now - strip.next_tick > NOT_HEARD_AFTER
        rows.append(Row(strip, own=False, heard=not overdue and (node is None or node.present)))
    return sorted(rows, key=lambda row: (row.strip.pipeline, not row.own, row.strip.node))


def fold(rows: Sequence[Row], states: Mapping[str, PipelineState], only_unwell: bool) -> Table:
    """Decide which rows are shown. Pure."""
    by_pipeline: dict[str, list[Row]] = {}
    for row in rows:
        by_pipeline.setdefault(row.strip.pipeline, []).append(row)
    folds = only_unwell or len(rows) > MAX_UNFOLDED
    groups: list[Group] = []
    folded: list[str] = []
    shown = hidden = 0
    for pipeline, all_rows in by_pipeline.items():
        state = states.get(pipeline)
        pending = bool(state and state.pending)
        visible = [row for row in all_rows if not (folds and row.is_well)]
        if not visible and not pending:
            folded.append(pipeline)
            continue
        room = max(0, MAX_ROWS - shown)
        hidden += max(0, len(visible) - room)
        shown += len(visible[:room])
        if not visible[:room] and not pending:
            continue
        groups.append(
            Group(
                pipeline,
                visible[:room],
                well=len(all_rows) - len(visible),
                schedules=all_rows[0].strip.schedules,
                datasets=sorted({step.dataset for step in state.steps}) if state else (),
                pending=pending,
            )
        )
    return Table(groups, folded, len(by_pipeline), len(rows), hidden)


def count_ticks(rows: Iterable[Row]) -> Counter[str]:
    """Return how many ticks of the last 24 hours ended how; a node that is not heard counts as unknown."""
    found: Counter[str] = Counter()
    for row in rows:
        recent = row.strip.recent
        found.update(row.strip.marks[-recent:] if recent else "")
        if not row.heard:
            found["?"] += 1
    return found


def row_strip(row: Row, ticks: int, clock: formats.Clock) -> Markup:
    """Return the strip of a row, with a link to the run of each exception that is named."""
    strip = row.strip
    first = max(0, len(strip.marks) - ticks)
    shown = strip.marks[first:]
    named = {exception.at - first: exception for exception in strip.exceptions if exception.at >= first}

    def describe(index: int) -> tuple[str, str | None]:
        word = marks.MARKS.get(shown[index], "not known")
        exception = named.get(index)
        if exception is None:
            return word, None
        where = path_of("ui", "runs", exception.run) + ("" if row.own else f"?node={strip.node}")
        return f"{word}, {clock.moment(exception.tick)}", where

    def describe_good(begin: int, end: int) -> str:
        return f"{end - begin + 1} succeeded"

    if not row.heard:
        shown += "?"
    label = f"{strip.pipeline} on {strip.node}, last {len(shown)} ticks: {marks.counted(shown)}"
    return marks.strip(
        shown,
        label,
        lambda index: ("not heard", None) if index == len(shown) - 1 and not row.heard else describe(index),
        describe_good,
        places=ticks,
    )


def row_plot(series: Series) -> Markup:
    """Return the small line of a control metric."""
    points = [_plot_point(point) for point in series.points]
    newest = series.points[-1]
    inside = "inside its band" if newest.accepted else "outside its band"
    return sparkline(points, f"{series.metric}, newest {formats.number(newest.value)}, {inside}")


def _plot_point(point: Point) -> PlotPoint:
    return PlotPoint(point.value, point.expected, point.band, None if point.accepted else "bad")


@router.get("/")
async def today(
    page: PageDep,
    pipeline: Annotated[str, Query(max_length=200)] = "",
    node: Annotated[str, Query(max_length=100)] = "",
    ticks: Annotated[int, Query(ge=10, le=300)] = 40,
    only: Annotated[Literal["", "unwell"], Query()] = "",
) -> HTMLResponse:
    api = page.api
    own, others, nodes, states, datasets, rounds = await asyncio.gather(
        api.optional(api.listing("/ticks", TickStrip)),
        api.optional(api.cache.recent("peers", PEERS_SECONDS, lambda: _peers(api))),
        api.optional(api.cache.recent("nodes", PEERS_SECONDS, lambda: _nodes(api))),
        api.optional(api.cache.recent("states", SHARED_SECONDS, lambda: _states(api))),
        api.optional(api.cache.recent("datasets", SHARED_SECONDS, lambda: _datasets(api))),
        api.optional(api.get("/rounds", LiveRounds, limit=200)),
    )
    alarms = await page.alarms()
    rows = make_rows(
        own.items if own else [],
        others.items if others else [],
        {each.name: each for each in nodes.items} if nodes else {},
        page,
    )
    enrolled = [state.name for state in (states or {}).values() if state.enrolled]
    if own is not None and states is not None and not rows and not enrolled:
        return await steps.greet(page)
    wanted = [
        row
        for row in rows
        if (not pipeline or pipeline in row.strip.pipeline) and node in ("", row.strip.node)
    ]
    table = fold(wanted, states or {}, only == "unwell")
    return await page.render(
        "today.html",
        section="Today",
        title="Today",
        table=table,
        answers=_answers(page, rows, datasets, rounds),
        needs=list_needs(alarms, states or {}, datasets or []),
        more_needs=max(0, len(alarms) - MAX_NEEDS),
        plots=await _plots(api, table),
        nodes=sorted({row.strip.node for row in rows}),
        pipelines=sorted({row.strip.pipeline for row in rows}),
        filters={"pipeline": pipeline, "node": node, "ticks": ticks, "only": only},
        row_strip=row_strip,
        row_plot=row_plot,
        enrolled=enrolled if own is not None and not rows else [],
    )


async def _peers(api: NodeApi) -> Listing[TickStrip]:
    return await api.tagged_listing("/federation/ticks", TickStrip)


async def _nodes(api: NodeApi) -> Listing[NodePart]:
    return await api.listing("/federation/nodes", NodePart)


async def _states(api: NodeApi) -> dict[str, PipelineState]:
    return {state.name: state for state in (await api.listing("/pipeline", PipelineState, limit=1000)).items}


async def _datasets(api: NodeApi) -> list[DatasetStatus]:
    return (await api.listing("/datasets", DatasetStatus, limit=1000)).items


def _answers(
    page: Page, rows: Sequence[Row], datasets: Sequence[DatasetStatus] | None, rounds: LiveRounds | None
) -> Answers:
    day = page.clock.now - timedelta(days=1)
    recent: list[LiveRound] = [each for each in rounds.items if each.tick > day] if rounds else []
    waiting = [each for each in datasets or () if each.outbox.waiting]
    return Answers(
        ticks=count_ticks(rows),
        rounds=Counter(each.phase for each in recent),
        unpushed=sum(each.outbox.waiting for each in waiting),
        unpushed_in=[each.name for each in waiting],
        reasons=[each.outbox.detail for each in waiting if each.outbox.detail],
        known={"datasets": datasets is not None, "rounds": rounds is not None},
    )


@dataclass(frozen=True, slots=True)
class Need:
    """Something that needs a person: an alarm, a pending change of a pipeline with what it changes, or a
    dataset with snapshots in quarantine."""

    alarm: Alarm | None = None
    pending: PipelineState | None = None
    changes: Sequence[str] = ()
    quarantined: DatasetStatus | None = None


def list_needs(
    alarms: Sequence[Alarm], states: Mapping[str, PipelineState], datasets: Sequence[DatasetStatus]
) -> list[Need]:
    """Return what needs a person. Pure.

    First alarms that last, then quarantined snapshots, whose alarm may have been acknowledged, then alarms
    that are over, and pending changes.
    """
    lasting = [alarm for alarm in alarms if alarm.over is None]
    over = [alarm for alarm in alarms if alarm.over is not None]
    changed = [state for _, state in sorted(states.items()) if state.pending]
    held = [status for status in datasets if status.quarantined]
    return [
        *(Need(alarm=alarm) for alarm in lasting[:MAX_NEEDS]),
        *(Need(quarantined=status) for status in held[:MAX_NEEDS]),
        *(Need(alarm=alarm) for alarm in over[: max(0, MAX_NEEDS - len(lasting))]),
        *(
            Need(
                pending=state,
                changes=[_change_words(each) for each in read_changes(state.pending[:MAX_CHANGES])],
            )
            for state in changed[:MAX_NEEDS]
        ),
    ]


def _change_words(change: Change) -> str:
    if change.note:
        return change.note
    where = f"step {change.step}: " if change.step else ""
    return f"{where}{change.field} {change.before or 'not set'} → {change.after or 'not set'}"


async def _plots(api: NodeApi, table: Table) -> dict[str, Series]:
    """Return a control metric of each of this node's pipelines that are shown, for few of them."""
    own = [row.strip.pipeline for group in table.groups for row in group.rows if row.own][:MAX_PLOTS]
    if not own:
        return {}
    listed = await api.optional(api.listing("/series", Series, points=40))
    found: dict[str, Series] = {}
    for series in listed.items if listed else []:
        if series.points and series.pipeline in own:
            found.setdefault(series.pipeline, series)
    return found
