"""Which records of a list are shown, in which order: `--sort-by`, `--since`, `--until`; changes of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from .exits import CommandError, ExitCode
from .text import close_names, plain

if TYPE_CHECKING:
    from .output import Column, Document, TableView

T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """Order and period of a list. `sort_by`: a column's title, or a field of the JSON; `-` reverses it."""

    sort_by: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def has_period(self) -> bool:
        return self.since is not None or self.until is not None

    def select(self, view: TableView[T], records: Iterable[T], now: datetime, limit: int | None) -> list[T]:
        """Return the first `limit` records of the period, in the order asked for. Raises CommandError."""
        chosen = list(islice(self._in_period(view, records), limit))
        if self.sort_by is None:
            return chosen
        name = self.sort_by.removeprefix("-")
        keyed = sort_keys(view, chosen, name, now)
        order = sorted(range(len(chosen)), key=lambda at: keyed[at][1])
        if self.sort_by.startswith("-"):
            order.reverse()
        with_value = [chosen[at] for at in order if keyed[at][0]]
        return with_value + [record for record, (known, _) in zip(chosen, keyed, strict=True) if not known]

    def _in_period(self, view: TableView[T], records: Iterable[T]) -> Iterator[T]:
        for record in records:
            moment = view.time(record) if view.time else None
            if moment is None and (self.since or self.until) and view.time:
                continue  # it is not known to lie in the period
            if moment is not None and self.since is not None and moment < self.since:
                continue
            if moment is not None and self.until is not None and moment > self.until:
                continue
            yield record


# Sorting

SortKey = tuple[bool, tuple[int, float, str]]  # whether there is a value; rank of its type, number, text


def sort_keys(view: TableView[T], records: list[T], name: str, now: datetime) -> list[SortKey]:
    """Return a key for each record. Raises CommandError if `name` is no column and no field."""
    column = next((column for column in view.columns if _folded(column.title) == _folded(name)), None)
    if column is not None:
        return [_key(_sortable(column, record, now)) for record in records]
    from .output import to_document

    documents = [to_document(record) for record in records]
    if not documents or any(_has(document, name) for document in documents):
        return [_key(_value(document, name)) for document in documents]
    titles = [column.title.lower().replace(" ", "-") for column in view.columns]
    fields = sorted({key for document in documents for key in document})
    near = close_names(name, [*titles, *fields])
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Columns: {', '.join(titles)}."
    raise CommandError(ExitCode.USAGE, f"There is no column or field {name!r} to sort by.", hint)


def _folded(title: str) -> str:
    return title.casefold().replace("-", " ").replace("_", " ")


def _sortable(column: Column[T], record: T, now: datetime) -> object:
    return column.sort(record) if column.sort else column.cell(record, now)


def _has(document: Mapping[str, Any], path: str) -> bool:
    key, _, rest = path.partition(".")
    value = document.get(key)
    return key in document and (not rest or (isinstance(value, dict) and _has(value, rest)))


def _value(document: Mapping[str, Any], path: str) -> object:
    for key in path.split("."):
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return None if document == {} else document


def _key(value: object) -> SortKey:
    """Return a key that orders numbers before times and words; without a value, the record comes last."""
    if value is None or value == "":
        return False, (0, 0.0, "")
    if isinstance(value, bool | int | float):
        return True, (0, float(value), "")
    if isinstance(value, datetime):
        return True, (1, 0.0, value.astimezone(UTC).isoformat())
    return True, (2, 0.0, plain(value).casefold())


# Changes of a list, for `--watch`


@dataclass
class Shown:
    """What was shown of a list: the documents by name, and the table's widths."""

    documents: dict[str, Document] = field(default_factory=dict)
    widths: list[int] | None = None

    def changed(self, view: TableView[T], records: list[T]) -> tuple[list[T], list[str]]:
        """Return the records that are new or changed, and the names of those that are gone."""
        from .output import to_document

        now = {view.name(record): to_document(record) for record in records}
        changed = [
            record for record in records if self.documents.get(view.name(record)) != now[view.name(record)]
        ]
        gone = [name for name in self.documents if name not in now]
        self.documents = now
        return changed, gone
