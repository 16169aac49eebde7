"""Output formats: tables for people, JSON and YAML for programs, `kind/name` for scripts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mao_shared.json_text import render_json, unmarked

from .layout import GAP, Measure, cut_middle, fit
from .text import harmless, harmless_json, harmless_line, plain

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Document = dict[str, Any]
"""A record as its JSON object."""

APPLIED = (
    "tool",
    "dataset",
    "pipeline",
    "enrolment",
    "job",
    "webhook",
    "channel",
    "rule",
    "heartbeat",
)
"""The kinds of `maoctl apply`, ordered so that none refers to a later one."""
MIN_FACT = 24  # columns; a narrower terminal wraps the lines of facts itself
_UNLIMITED_WIDTH = 100_000  # columns; a table is only cut on a terminal
_STYLES = {
    "succeeded": "green",
    "ok": "green",
    "running": "cyan",
    "failed": "red",
    "lost": "red",
    "missed": "yellow",
    "cancelled": "yellow",
}


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        return self in (Format.TABLE, Format.WIDE)


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table.

    `cell` takes a record and the current time; `wide` columns are shown with `-o wide` only. `sort` returns
    the value to sort by where the cell is worded, such as an age. On a narrow terminal, text is cut, and
    columns with the highest `spare` are left out.
    """

    title: str
    cell: Callable[[T, datetime], object]
    wide: bool = False
    keep_whole: bool = False  # names and ids: cut last, and in the middle
    sort: Callable[[T], object] | None = None
    spare: int = 0
    fold: bool = False  # sentences to be read whole: continued on further lines in place of being cut


@dataclass(frozen=True)
class TableView(Generic[T]):
    """The table of one kind of record. `identify` returns a record's name or id; `time` when it began."""

    kind: str
    columns: Sequence[Column[T]]
    identify: Callable[[T], str]
    time: Callable[[T], datetime | None] | None = None

    def name(self, record: T) -> str:
        """Return `kind/name`."""
        return f"{self.kind}/{self.identify(record)}"


def to_document(record: Any) -> Document:
    """Return a record as the node sent it: with unknown fields, without defaults."""
    if hasattr(record, "model_dump"):
        return dict(record.model_dump(mode="json", exclude_unset=True, warnings=False))
    return dict(record.document())


def print_records(view: TableView[T], records: Sequence[T], how: Format, now: datetime) -> None:
    """Print a list of records; in JSON and YAML always a list, whatever its length."""
    if how.for_people:
        print_table(view, records, how, now)
    elif how is Format.NAME:
        for record in records:
            write(harmless_line(view.name(record)) + "\n")
    else:
        print_data([with_kind(view.kind, to_document(record)) for record in records], how)


def print_record(view: TableView[T], record: T, how: Format, now: datetime) -> None:
    """Print one record; in JSON and YAML an object."""
    if how in (Format.JSON, Format.YAML):
        print_data(with_kind(view.kind, to_document(record)), how)
    else:
        print_records(view, [record], how, now)


def print_changes(
    view: TableView[T], records: Sequence[T], how: Format, now: datetime, widths: Sequence[int] | None
) -> list[int] | None:
    """Print records below those that were printed before, in columns of at least `widths`.

    In JSON each on a line, in YAML each as a document. Returns the widths of a table.
    """
    if how.for_people:
        return print_table(view, records, how, now, widths) if records or widths is None else list(widths)
    for record in records:
        if how is Format.NAME:
            write(harmless_line(view.name(record)) + "\n")
        elif how is Format.JSON:
            document = with_kind(view.kind, to_document(record))
            write(harmless_json(render_json(document, ensure_ascii=False)) + "\n")
        else:
            write("---\n")
            print_data(with_kind(view.kind, to_document(record)), how)
    return None


def with_kind(kind: str, document: Document) -> Document:
    """Return a document with its kind, as `maoctl apply` takes it; one that has a `kind` keeps its own."""
    return document if "kind" in document else {"kind": kind, **document}


def print_data(data: Any, how: Format) -> None:
    """Print any data as JSON or YAML."""
    if how is not Format.YAML:
        write(harmless_json(render_json(data, indent=2, ensure_ascii=False)) + "\n")
        return
    import yaml

    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_UNLIMITED_WIDTH)
    if harmless_json(text) != text:  # plain scalars cannot contain escapes: quote all non-ASCII text
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=_UNLIMITED_WIDTH)
    write(unmarked(text))


def print_table(
    view: TableView[T],
    records: Sequence[T],
    how: Format,
    now: datetime,
    below: Sequence[int] | None = None,
) -> list[int]:
    """Print a table; without records, stdout stays empty and stderr says so.

    `below`: the widths of a table that this one continues, without a heading. Returns the widths.
    """
    if not records:
        say(f"No {view.kind} found.")
        return []
    columns = [column for column in view.columns if how is Format.WIDE or not column.wide]
    rows = [[harmless_line(plain(column.cell(record, now))) for column in columns] for record in records]
    naturals = [max(cell_len(cell) for cell in cells) for cells in zip(*rows, strict=True)]
    measures = [
        Measure(max(natural, len(column.title)), len(column.title), column.keep_whole, column.spare)
        for column, natural in zip(columns, naturals, strict=True)
    ]
    widths = list(below or [])
    if not widths:
        is_cut = sys.stdout.isatty() and how is not Format.WIDE
        widths = fit(measures, _console().width) if is_cut else [measure.natural for measure in measures]
    shown = [(column, width) for column, width in zip(columns, widths, strict=True) if width]
    cells = [[cell for cell, width in zip(row, widths, strict=True) if width] for row in rows]
    is_whole = not sys.stdout.isatty() or how is Format.WIDE
    _print_rows(shown, cells, heading=not below, is_whole=is_whole)
    return widths


def cell_len(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns without a heading; empty values are omitted."""
    rows = [[harmless_line(name), harmless(value)] for name, value in facts if value]
    if not rows:
        return
    names = max(cell_len(name) for name, _ in rows)
    values = max(max(map(cell_len, value.split("\n"))) for _, value in rows)
    if sys.stdout.isatty():
        values = min(values, max(_console().width - names - GAP, MIN_FACT))
    name: Column[Any] = Column("", lambda cell, _: cell, keep_whole=True)
    value: Column[Any] = Column("", lambda cell, _: cell, fold=True)
    _print_rows([(name, names), (value, values)], rows, heading=False)


def flatten_facts(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a document as names and values, nested names joined by dots."""
    facts: list[tuple[str, str]] = []
    for key, value in document.items():
        nested = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(item, dict) for item in value)
        )
        if nested:
            items = value if isinstance(value, dict) else {str(n): item for n, item in enumerate(value)}
            facts += flatten_facts(items, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", plain(value)))
    return facts


def _console() -> Console:
    """Return the console of stdout: its width, and colours where the terminal and the user want them."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Console(
        file=sys.stdout,
        force_terminal=terminal,
        color_system="auto" if colours else None,
        width=None if terminal else _UNLIMITED_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
    )


def _print_rows(
    columns: Sequence[tuple[Column[Any], int]],
    rows: Sequence[Sequence[str]],
    *,
    heading: bool,
    is_whole: bool = False,
) -> None:
    """Print a table of columns with their widths; `is_whole`: cells longer than that are not cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold", padding=(0, GAP, 0, 0))
    for column, width in columns:
        table.add_column(
            column.title,
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
            min_width=width,
            max_width=None if is_whole else width,
        )
    for row in rows:
        cells = [
            cut_middle(cell, width) if column.keep_whole and not is_whole else cell
            for cell, (column, width) in zip(row, columns, strict=True)
        ]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    console = _console()
    console.width = _UNLIMITED_WIDTH  # the columns have their widths
    with console.capture() as captured:
        console.print(table, crop=False)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


CLEAR_SCREEN = "\x1b[H\x1b[2J"  # cursor home, erase all (ECMA-48)


def is_redrawn() -> bool:
    """True if stdout is a terminal on which the screen can be cleared."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def write(text: str) -> None:
    """Write data to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout unchanged; only if stdout is not a terminal, or the user asked for it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a message to stderr."""
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()
