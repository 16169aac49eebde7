"""Rounds as a grid: who agreed with ground truth, differed, was late or absent, in each of the last rounds.

Pure. Decided rounds come from the repository, undecided and open ones from the federation's store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mao_gateway.pages.formats import Clock, plural
from mao_gateway.pages.node_api import path_of
from mao_shared.models.evidence import RoundSummary
from mao_shared.models.round import LiveRound

MARKS: dict[str, tuple[str, str]] = {
    "agreed": ("agreed", "a-ok"),
    "differed": ("differed", "s-warn"),
    "late": ("late", "s-warn"),
    "absent": ("absent", "s-off"),
    "failed": ("failed", "s-bad"),
    "left": ("skipped", "s-off"),
    "announced": ("ok", "s-off"),
    "waits": ("waiting", "s-off"),
    "no part": ("skipped", "s-off"),
    "decided": ("ok", "s-ok"),
    "contested": ("attention", "s-warn"),
    "undecided": ("lost", "s-lost"),
    "open": ("waiting", "s-off"),
}
"""State of a cell of the grid → icon and class of its colour."""
LEGEND = ("agreed", "differed", "late", "absent", "failed", "waits", "decided", "contested", "undecided")
_ABSTAINED = {"late": "late", "absent": "absent", "left": "left"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A cell of the grid. `words`: what is said of it; `href`: where to look, for all that is not usual."""

    state: str
    words: str
    href: str | None = None

    @property
    def icon(self) -> str:
        return MARKS[self.state][0]

    @property
    def colour(self) -> str:
        return MARKS[self.state][1]


@dataclass(frozen=True, slots=True)
class Column:
    """A round. `label`: shown above it, empty if it begins as the one before; `words`: its state."""

    id: str
    tick: datetime
    state: str
    words: str
    href: str | None
    nodes: Mapping[str, Mark]
    label: str = ""

    @property
    def mark(self) -> Mark:
        return Mark(self.state, self.words, self.href)


@dataclass(frozen=True, slots=True)
class Row:
    """A node and its marks, one a round; None where it was no voter. `agreed` of `voted` rounds."""

    node: str
    marks: Sequence[Mark | None]
    agreed: int
    voted: int


@dataclass(frozen=True, slots=True)
class Grid:
    """The oldest round first. `open`: rounds that have not ended, the newest first."""

    columns: Sequence[Column] = ()
    rows: Sequence[Row] = ()
    open: Sequence[LiveRound] = field(default_factory=tuple)

    @property
    def decided(self) -> int:
        return sum(column.state in ("decided", "contested") for column in self.columns)


def make_grid(
    dataset: str, decided: Sequence[RoundSummary], live: Sequence[LiveRound], count: int, clock: Clock
) -> Grid:
    """Return the last `count` rounds of a dataset; a round that both know is taken from the repository."""
    columns = {found.round: _decided_column(dataset, found, clock) for found in decided}
    for found in live:
        if found.dataset == dataset and found.id not in columns and found.phase != "decided":
            columns[found.id] = _live_column(dataset, found, clock)
    ordered = sorted(columns.values(), key=lambda column: (column.tick, column.id))[-count:]
    shown = {column.id for column in ordered}
    return Grid(
        columns=_with_labels(ordered, clock),
        rows=_rows(ordered),
        open=[found for found in live if found.id in shown and found.phase in ("open", "closed")],
    )


def _decided_column(dataset: str, found: RoundSummary, clock: Clock) -> Column:
    when, href = clock.full(found.tick), path_of("ui", "agreement", dataset, found.round)
    marks: dict[str, Mark] = {}
    for node, count in found.differing.items():
        if count:
            words = f"{node}, {when}: differed in {plural(count, 'cell')}"
            marks[node] = Mark("differed", words, href)
        else:
            marks[node] = Mark("agreed", "agreed")
    for node, why in found.abstained.items():
        state = _ABSTAINED.get(why, "failed")
        marks[node] = Mark(state, f"{node}, {when}: {why}", href)
    words = f"round of {when}: decided by {found.voters} of {plural(found.nodes, 'node')}"
    if found.cells:
        words += f", nodes differ in {plural(found.cells, 'cell')}"
    if found.conflicts:
        words += f", {found.conflicts} undecided"
    contested = bool(found.cells or found.conflicts)
    return Column(found.round, found.tick, "contested" if contested else "decided", words, href, marks)


def _live_column(dataset: str, found: LiveRound, clock: Clock) -> Column:
    when = clock.full(found.tick)
    if found.phase == "undecided":
        words = f"round of {when}: undecided: {found.reason or 'no reason is known'}"
        state = "undecided"
    else:
        words = f"round of {when}: {found.phase}, ends on {clock.full(found.deadline)} at the latest"
        state = "open"
    marks = {node: _live_mark(found, node, when) for node in found.nodes}
    return Column(found.id, found.tick, state, words, f"{path_of('ui', 'agreement', dataset)}#open", marks)


def _live_mark(found: LiveRound, node: str, when: str) -> Mark:
    if (why := found.abstained.get(node)) is not None:
        words = f"{node}, {when}: {why.reason}" + (f", {why.detail}" if why.detail else "")
        return Mark(_ABSTAINED.get(why.reason, "failed"), words)
    if found.announced.get(node) or node in found.commits:
        return Mark("announced", f"{node}, {when}: announced its snapshot")
    if node in found.announced:
        return Mark("failed", f"{node}, {when}: has no snapshot to announce")
    return Mark("absent" if found.phase == "undecided" else "waits", f"{node}, {when}: not heard yet")


def _with_labels(columns: Sequence[Column], clock: Clock) -> list[Column]:
    """Label the first round of each day with the day of the month."""
    days = [column.tick.astimezone(clock.zone).date() for column in columns]
    return [
        replace(column, label=str(day.day) if index == 0 or day != days[index - 1] else "")
        for index, (column, day) in enumerate(zip(columns, days, strict=True))
    ]


def _rows(columns: Sequence[Column]) -> list[Row]:
    nodes = sorted({node for column in columns for node in column.nodes})
    rows = []
    for node in nodes:
        marks = [column.nodes.get(node) for column in columns]
        states = [mark.state for mark in marks if mark is not None]
        agreed, differed = states.count("agreed"), states.count("differed")
        rows.append(Row(node, marks, agreed, agreed + differed))
    return rows


def open_words(found: LiveRound) -> str:
    """Return what an open or closed round waits for, in a sentence or three."""
    ready = [node for node in found.nodes if found.announced.get(node) or node in found.commits]
    without = [node for node in found.nodes if node in found.announced and node not in ready]
    parts = [f"{_names(ready)} announced {'its snapshot' if len(ready) == 1 else 'their snapshots'}"]
    if not ready:
        parts = ["Nobody has announced a snapshot yet"]
    if without:
        parts.append(f"{_names(without)} {'has' if len(without) == 1 else 'have'} none")
    if found.silent:
        parts.append(f"{_names(found.silent)} {'was' if len(found.silent) == 1 else 'were'} not heard yet")
    text = "; ".join(parts) + "."
    if found.phase == "closed":
        text += f" The nodes compute the result; {found.to_attest} of {len(found.nodes)} must agree on it."
    else:
        text += f" {found.needed} of {len(found.nodes)} are enough."
    if found.waits_for:
        text += f" It waits for round {found.waits_for}."
    return text


def _names(nodes: Sequence[str], most: int = 8) -> str:
    shown = list(nodes[:most]) + ([f"{len(nodes) - most} more"] if len(nodes) > most else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}" if shown else ""
