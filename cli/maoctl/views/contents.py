"""Tables of datasets' contents: branches, commits, files, differences, insights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mao_shared.json_text import unmarked
from maoctl.output import Column, Document, TableView
from maoctl.text import plain, relative, short_commit, size

if TYPE_CHECKING:
    from mao_shared.models import dataset
    from mao_shared.models.external import Insight

_COUNTS = ("added", "removed", "changed", "same")

BRANCH: TableView[dataset.BranchStatus] = TableView(
    "branch",
    [
        Column("BRANCH", lambda branch, _: branch.name, keep_whole=True),
        Column("COMMIT", lambda branch, _: short_commit(branch.commit), keep_whole=True),
        Column(
            "AGE",
            lambda branch, now: relative(branch.time, now),
            keep_whole=True,
            sort=lambda branch: branch.time,
        ),
        Column("UNPUSHED", lambda branch, _: branch.unpushed),
        Column("SUBJECT", lambda branch, _: branch.subject),
    ],
    lambda branch: branch.name,
    lambda branch: branch.time,
)
COMMIT: TableView[dataset.CommitInfo] = TableView(
    "commit",
    [
        Column("COMMIT", lambda commit, _: short_commit(commit.commit), keep_whole=True),
        Column(
            "AGE",
            lambda commit, now: relative(commit.time, now),
            keep_whole=True,
            sort=lambda commit: commit.time,
        ),
        Column("AUTHOR", lambda commit, _: commit.author, spare=2),
        Column("SUBJECT", lambda commit, _: commit.subject),
        Column("RUN", lambda commit, _: commit.run, keep_whole=True, spare=1),
    ],
    lambda commit: commit.commit,
    lambda commit: commit.time,
)
FILE: TableView[dataset.FileInfo] = TableView(
    "file",
    [
        Column("PATH", lambda file, _: file.path, keep_whole=True),
        Column("SIZE", lambda file, _: size(file.size), sort=lambda file: file.size),
        Column("KIND", lambda file, _: file.kind),
        Column("BLOB", lambda file, _: short_commit(file.id), wide=True),
    ],
    lambda file: file.path,
)
VALUE_VERSION: TableView[dataset.ValueVersion] = TableView(
    "version",
    [
        Column("TIME", lambda version, _: version.time, keep_whole=True),
        Column("COMMIT", lambda version, _: short_commit(version.commit), keep_whole=True),
        Column("VALUE", lambda version, _: version.value, fold=True),
        Column("CHANGED", lambda version, _: version.changed),
        Column("RUN", lambda version, _: version.run or version.round, keep_whole=True, spare=2),
        Column("TICK", lambda version, _: version.tick, wide=True),
        Column("STEP", lambda version, _: version.step, wide=True),
        Column("KEY", lambda version, _: version.key, wide=True),
        Column("REASON", lambda version, _: version.unknown or version.reason, fold=True),
    ],
    lambda version: version.commit,
    lambda version: version.time,
)
FILE_DIFFERENCE: TableView[dataset.FileDifference] = TableView(
    "difference",
    [
        Column("CHANGE", lambda file, _: file.change, keep_whole=True),
        Column("PATH", lambda file, _: file.path, keep_whole=True),
        Column("BEFORE", lambda file, _: short_commit(file.before), wide=True),
        Column("AFTER", lambda file, _: short_commit(file.after), wide=True),
    ],
    lambda file: file.path,
)


@dataclass(frozen=True)
class FieldChange:
    """A field of a record that differs; the record as a whole if `field` is empty."""

    change: str
    key: str
    field: str = ""
    before: str | None = None
    after: str | None = None

    def document(self) -> Document:
        return asdict(self)


FIELD_DIFFERENCE: TableView[FieldChange] = TableView(
    "difference",
    [
        Column("CHANGE", lambda change, _: change.change, keep_whole=True),
        Column("KEY", lambda change, _: change.key),
        Column("FIELD", lambda change, _: change.field),
        Column("BEFORE", lambda change, _: change.before, fold=True),
        Column("AFTER", lambda change, _: change.after, fold=True),
    ],
    lambda change: change.key,
)


def field_changes(row: dataset.RowDifference) -> Iterator[FieldChange]:
    """Yield a row for each field that differs, or one row for the record as a whole."""
    key = plain(row.key)
    if not row.fields:
        yield FieldChange(row.change, key)
    for name, values in row.fields.items():
        yield FieldChange(row.change, key, name, values.before, values.after)


def rows_summary(rows: dataset.RowsDifference) -> str:
    """Return how the records were matched, and how many of them differ."""
    by = f"by {', '.join(rows.key)} ({rows.key_source})" if rows.key else "by position"
    counts = ", ".join(f"{getattr(rows, word)} {word}" for word in _COUNTS)
    columns = [f"column {name} added" for name in rows.columns_added]
    columns += [f"column {name} removed" for name in rows.columns_removed]
    more = ["not all shown (--limit)"] if rows.truncated else []
    return "; ".join([f"Rows matched {by}: {counts}", *columns, *more])


INSIGHT: TableView[Insight] = TableView(
    "insight",
    [
        Column("KEY", lambda insight, _: insight.key, keep_whole=True),
        Column("DATASET", lambda insight, _: insight.dataset),
        Column("COMMIT", lambda insight, _: short_commit(insight.commit)),
        Column("SIZE", lambda insight, _: size(insight.size), sort=lambda insight: insight.size),
        Column("VALUE", lambda insight, _: insight.problem or unmarked(plain(insight.value))),
    ],
    lambda insight: insight.key,
)
