"""What the pages of datasets show, decided from the answers of the API. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from markupsafe import Markup, escape

from mao_gateway.pages.formats import Clock, number, plural
from mao_gateway.pages.plots import PlotPoint, plot
from mao_shared.commit_messages import read_manifest, read_step_record
from mao_shared.errors import MaoError
from mao_shared.models import GROUND_TRUTH, Alarm, ControlMetric, Enrolment, Series
from mao_shared.models.alarm import Point
from mao_shared.models.dataset import (
    BranchStatus,
    CommitInfo,
    DatasetStatus,
    FileInfo,
    FilePreview,
    Outbox,
    ValueVersion,
)
from mao_shared.text import harmless

METRIC_POINTS = 60  # newest points of a control metric that are drawn
MAX_LINKED_COLUMNS = 12  # of a preview whose values link to their history
SHOWN_VERSIONS = 40
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_RECORD_FILES = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson")
_REASONS = {
    "waiting": "Commits wait to be pushed",
    "refused": "The remote refuses the push",
    "auth": "The remote does not accept the credentials",
    "gone": "The remote is gone",
    "diverged": "The branch at the remote has commits that are not here",
}
"""State of the outbox → heading."""


def command(*words: str) -> str:
    """Return a command line for a shell."""
    return " ".join(map(shlex.quote, words))


def link(**query: object) -> str:
    """Return a query string of the parameters that are not empty."""
    given = [(name, value) for name, value in query.items() if value not in (None, "", 0)]
    return f"?{urlencode(given, doseq=True)}"


# the state of a dataset


def dataset_state(status: DatasetStatus) -> tuple[str, str, str]:
    """Return icon, colour and words for a dataset's state on this node."""
    if status.broken_clones:
        return "failed", "bad", "clone was broken"
    outbox = status.outbox
    if outbox.state == "in-sync" and not status.unpushed:
        return "ok", "ok", "pushed"
    count = outbox.waiting or status.unpushed  # a commit of both branches counts twice in the latter
    words = f"{plural(count, 'commit')} {'waits' if count == 1 else 'wait'}"
    return "push", "warn" if outbox.state in ("in-sync", "waiting") else "bad", words


def reason_heading(outbox: Outbox) -> str:
    return _REASONS.get(outbox.state, "Commits wait to be pushed")


@dataclass(frozen=True, slots=True)
class WaitingCommit:
    """A commit that waits to be pushed. `files`, `size`: what its run recorded of its output."""

    info: CommitInfo
    files: int | None
    size: int | None


def waiting_commits(commits: Iterable[CommitInfo]) -> list[WaitingCommit]:
    """Return commits with the size of what they hold, as far as their messages say."""
    found = []
    for info in commits:
        files, size = read_manifest(read_step_record(info.message)) or (None, None)
        found.append(WaitingCommit(info, files, size))
    return found


def default_ref(branches: Sequence[BranchStatus], node: str) -> str | None:
    """Return the branch to show: this node's, else ground truth, else the first."""
    names = [branch.name for branch in branches]
    return next((name for name in (node, GROUND_TRUTH, *names) if name in names), None)


def writers(enrolments: Iterable[Enrolment], dataset: str) -> list[str]:
    """Return the pipelines of this node that write a dataset."""
    return sorted({enrolment.pipeline for enrolment in enrolments if dataset in enrolment.outputs})


# control metrics


@dataclass(frozen=True, slots=True)
class WatchedMetric:
    """A control metric of a step that writes the dataset."""

    pipeline: str
    step: str
    metric: ControlMetric

    @property
    def name(self) -> str:
        return f"{self.pipeline}/{self.step}/{self.metric.name}"

    @property
    def source(self) -> str:
        """Return what is measured, in words."""
        metric = self.metric
        if metric.file is None:
            return f"{metric.measure} of the output"
        if metric.pointer is not None:
            return f"{metric.file}, value at {metric.pointer or 'the top'}"
        return f"{metric.file}, column {metric.column}, {metric.aggregate}"


def watched_metrics(enrolments: Iterable[Enrolment], dataset: str) -> list[WatchedMetric]:
    """Return the control metrics of the steps by which this node writes a dataset."""
    return [
        WatchedMetric(enrolment.pipeline, step.name, metric)
        for enrolment in enrolments
        for step in enrolment.steps
        if step.output.name == dataset
        for metric in step.metrics
    ]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A point of a control metric that was not expected. `level`: it began a new level."""

    point: Point
    level: bool


def outliers(series: Series, alarms: Sequence[Alarm]) -> list[Outlier]:
    """Return the unexpected ones of a series' newest points, newest first."""
    levels = {alarm.run for alarm in alarms if alarm.kind == "level-shift" and alarm.metric == series.metric}
    shown = reversed(series.points[-METRIC_POINTS:])
    return [
        Outlier(point, point.run in levels) for point in shown if point.run in levels or not point.accepted
    ]


def draw_metric(series: Series, found: Sequence[Outlier], clock: Clock) -> Markup:
    """Return the plot of a control metric's newest points with what was expected; outliers are marked."""
    shown = series.points[-METRIC_POINTS:]
    marks = {outlier.point.run: "warn" if outlier.level else "bad" for outlier in found}
    unit = series.unit or ""
    points = [
        PlotPoint(
            point.value,
            point.expected,
            point.band,
            marks.get(point.run),
            f"{clock.full(point.time)}: {number(point.value)} {unit}".rstrip(),
        )
        for point in shown
    ]
    newest = f"; the newest is {number(shown[-1].value)} {unit}".rstrip() if shown else ""
    count = plural(len(found), "outlier")
    label = f"{series.metric} over the last {plural(len(shown), 'run')}{newest}. {count}."
    return plot(points, label, unit, time_labels([point.time for point in shown], clock))


def time_labels(times: Sequence[datetime], clock: Clock, count: int = 4) -> list[str]:
    """Return short labels for some of the times, the first and the last among them; the last has the zone."""
    local = [time.astimezone(clock.zone) for time in times]
    if len(local) > count:
        local = [local[(len(local) - 1) * index // (count - 1)] for index in range(count)]
    if not local:
        return []
    days = (local[-1] - local[0]).days
    labels = [f"{time:%a %H:%M}" if days < 7 else f"{time.day} {time:%b}" for time in local]
    if days >= 300:
        labels = [f"{time:%b %Y}" for time in local]
    labels[-1] += f" {local[-1]:%Z}"
    return labels


# files


def default_file(files: Iterable[FileInfo]) -> str:
    """Return the file to preview: the first table of a folder, else its first file; empty without one."""
    paths = [file.path for file in files if file.kind == "file" and not file.name.startswith(".")]
    tables = [path for path in paths if path.lower().endswith(_RECORD_FILES)]
    return next(iter([*tables, *paths]), "")


def is_number(text: str | None) -> bool:
    return text is not None and _NUMBER.fullmatch(text.strip()) is not None


def number_columns(preview: FilePreview) -> list[bool]:
    """Return for each column of a table whether its values are numbers."""
    columns = zip(*preview.rows, strict=True) if preview.rows else [[] for _ in preview.columns]
    filled = ([cell for cell in cells if cell] for cells in columns)
    return [bool(cells) and all(map(is_number, cells)) for cells in filled]


def record_keys(preview: FilePreview) -> list[str] | None:
    """Return the key of each row of a table as `maoctl dataset history` takes it; None if there is none."""
    if not preview.key or len(preview.columns) > MAX_LINKED_COLUMNS:
        return None
    if any(name not in preview.columns for name in preview.key):
        return None
    places = [preview.columns.index(name) for name in preview.key]
    keys = [[row[place] or "" for place in places] for row in preview.rows]
    return [parts[0] if len(parts) == 1 else json.dumps(parts, ensure_ascii=False) for parts in keys]


# the history of a value


@dataclass(frozen=True, slots=True)
class ValueQuestion:
    """The value whose history is asked for. `branch`: empty for this node's and ground truth."""

    file: str = ""
    key: str = ""
    field: str = ""
    branch: str = ""

    @property
    def is_asked(self) -> bool:
        return bool(self.file and (self.key or self.field))

    def branches(self, known: Sequence[str], node: str) -> list[str]:
        """Return the branches to follow, one or two."""
        if self.branch:
            return [self.branch]
        return [name for name in (node, GROUND_TRUTH) if name in known] or list(known[:1])


def tips(branches: Sequence[BranchStatus], asked: ValueQuestion, node: str) -> dict[str, str]:
    """Return the branches on which a value is followed, with their commits; an unknown branch as it is."""
    known = {branch.name: branch.commit for branch in branches}
    return {name: known.get(name, name) for name in asked.branches(list(known), node)}


@dataclass(frozen=True, slots=True)
class BranchHistory:
    """The versions of a value on a branch, newest first, or the error that explains why there are none."""

    branch: str
    versions: Sequence[ValueVersion] = ()
    error: MaoError | None = None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What a value was at one moment: for each branch its version of that moment, None without one."""

    moment: datetime
    versions: Sequence[ValueVersion | None]

    @property
    def first(self) -> ValueVersion:
        return next(version for version in self.versions if version is not None)


def moment_of(version: ValueVersion) -> datetime:
    """Return the tick of a version, by which nodes are compared; without one its commit's time."""
    return version.tick or version.time


def history_rows(histories: Sequence[BranchHistory]) -> list[HistoryRow]:
    """Return the versions of all branches by moment, newest first; of one moment the newest of each."""
    by_moment: dict[datetime, list[ValueVersion | None]] = {}
    for place, found in enumerate(histories):
        for version in found.versions:
            row = by_moment.setdefault(moment_of(version), [None] * len(histories))
            row[place] = row[place] or version
    return [HistoryRow(moment, by_moment[moment]) for moment in sorted(by_moment, reverse=True)]


def draw_history(
    histories: Sequence[BranchHistory], rows: Sequence[HistoryRow], field: str, clock: Clock
) -> Markup | None:
    """Return the plot of numeric values, one line a branch; None if there are fewer than two numbers.

    A branch keeps its value until its next version; where it has none, the line is interrupted.
    """
    lines = [_line(rows, place, found.branch, clock) for place, found in enumerate(histories)]
    counts = [sum(point.value is not None for point in line) for line in lines]
    if max(counts, default=0) < 2:
        return None
    extents = [_extent(line) for line in lines]
    parts = [f"{found.branch} {text}" for found, text in zip(histories, extents, strict=True) if text]
    label = f"{field} at {plural(len(rows), 'moment')}: {', '.join(parts)}."
    times = time_labels([row.moment for row in reversed(rows)], clock)
    return plot(lines[0], label, "", times, lines[1] if len(lines) > 1 else ())


def _line(rows: Sequence[HistoryRow], place: int, branch: str, clock: Clock) -> list[PlotPoint]:
    points: list[PlotPoint] = []
    value: float | None = None
    for row in reversed(rows):
        version = row.versions[place]
        if version is not None:
            text = (version.value or "").strip().strip('"')
            value = float(text) if version.state == "value" and is_number(text) else None
        points.append(PlotPoint(value, label=f"{clock.full(row.moment)}, {branch}: {number(value)}"))
    return points


def _extent(line: Sequence[PlotPoint]) -> str:
    values = [point.value for point in line if point.value is not None]
    return f"{number(min(values))} to {number(max(values))}" if values else ""


def history_command(dataset: str, asked: ValueQuestion, branch: str) -> str:
    """Return the command that shows the same history on one branch."""
    of_branch = ["--branch", branch] if branch else []
    value = (asked.file, asked.key, asked.field)
    dashes = ["--"] if any(part.startswith("-") for part in value) else []
    return command("maoctl", "dataset", "history", *of_branch, *dashes, dataset, *value)


def lines_of(text: str) -> Markup:
    """Return text of several lines, harmless and escaped."""
    return escape(harmless(text))


def parse_versions(text: str, parse: Callable[[str], ValueVersion]) -> list[ValueVersion]:
    """Return the versions of an answer in JSON lines."""
    return [parse(line) for line in text.split("\n") if line.strip()]
