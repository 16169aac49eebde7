"""Output formats: tables for people, JSON and YAML for programs, `kind/name` for scripts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from mao_shared.json_text import render_json, unmarked

from .text import harmless, harmless_json, harmless_line, plain

T = TypeVar("T")
Document = dict[str, Any]
"""A record as its JSON object."""

APPLIED = ("tool", "dataset", "pipeline")
"""The kinds of `maoctl apply`, ordered so that none refers to a later one."""
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

    `cell` takes a record and the current time; `wide` columns are shown with `-o wide` only.
    """

    title: str
    cell: Callable[[T, datetime], object]
    wide: bool = False
    keep_whole: bool = False  # names and ids: never folded or cut, not even on a terminal


@dataclass(frozen=True)
class TableView(Generic[T]):
    """The table of one kind of record. `identify` returns a record's name or id."""

    kind: str
    columns: Sequence[Column[T]]
    identify: Callable[[T], str]

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
        print_data([_with_kind(view, to_document(record), how) for record in records], how)


def print_record(view: TableView[T], record: T, how: Format, now: datetime) -> None:
    """Print one record; in JSON and YAML an object."""
    if how in (Format.JSON, Format.YAML):
        print_data(_with_kind(view, to_document(record), how), how)
    else:
        print_records(view, [record], how, now)


def _with_kind(view: TableView[T], document: Document, how: Format) -> Document:
    """Add the kind to YAML that `maoctl apply` takes; JSON is what the node sent, unchanged."""
    return {"kind": view.kind, **document} if view.kind in APPLIED and how is Format.YAML else document


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


def print_table(view: TableView[T], records: Sequence[T], how: Format, now: datetime) -> None:
    """Print a table; without records, stdout stays empty and stderr says so."""
    if not records:
        say(f"No {view.kind} found.")
        return
    columns = [column for column in view.columns if how is Format.WIDE or not column.wide]
    rows = [[harmless_line(plain(column.cell(record, now))) for column in columns] for record in records]
    _print_rows([column.title for column in columns], [column.keep_whole for column in columns], rows)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns without a heading; empty values are omitted."""
    rows = [[harmless_line(name), harmless(value)] for name, value in facts if value]
    if rows:
        _print_rows(["", ""], [True, False], rows, heading=False)


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


def _print_rows(
    titles: Sequence[str], whole: Sequence[bool], rows: Sequence[Sequence[str]], heading: bool = True
) -> None:
    """Print a table. `whole`: the columns that are never folded or cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    console = Console(
        file=sys.stdout,
        force_terminal=terminal,
        color_system="auto" if colours else None,
        width=None if terminal else _UNLIMITED_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
    )
    table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold", padding=(0, 2, 0, 0))
    for index, (title, keep_whole) in enumerate(zip(titles, whole, strict=True)):
        width = max(len(row[index]) for row in rows) if keep_whole else None
        table.add_column(title, no_wrap=keep_whole, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(table, crop=False)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


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
