"""Records on stdout: tables for people, JSON and YAML for programs, `kind/name` for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TextIO, TypeVar

from mao_shared.json_text import render_json, unmarked

from .text import harmless, harmless_json, harmless_line, plain

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Document = dict[str, Any]
"""A record as its JSON object."""

APPLIED = ("tool", "dataset", "pipeline")
"""The kinds that `maoctl apply` takes, in an order in which none refers to a later one."""
_UNLIMITED = 100_000  # columns; a table that is not for a terminal is never cut
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
    """`cell` gives the value for a record at a time; `wide` columns are shown with `-o wide` only."""

    title: str
    cell: Callable[[T, datetime], object]
    wide: bool = False
    keep_whole: bool = False  # names and ids: neither folded nor cut, on a terminal either


@dataclass(frozen=True)
class TableView(Generic[T]):
    """How one kind of record looks. `identify` gives its name or id."""

    kind: str
    columns: Sequence[Column[T]]
    identify: Callable[[T], str]

    def name(self, record: T) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.identify(record)}"


def to_document(record: Any) -> Document:
    """A record as the node has sent it: with the fields that this version does not know, and no others."""
    if hasattr(record, "model_dump"):
        return dict(record.model_dump(mode="json", exclude_unset=True, warnings=False))
    return dict(record.document())


def print_records(view: TableView[T], records: Sequence[T], how: Format, now: datetime) -> None:
    """A list of records; as JSON and YAML it is a list, also when it is empty or has one record."""
    if how.for_people:
        print_table(view, records, how, now)
    elif how is Format.NAME:
        for record in records:
            write(harmless_line(view.name(record)) + "\n")
    else:
        print_data([_with_kind(view, to_document(record), how) for record in records], how)


def print_record(view: TableView[T], record: T, how: Format, now: datetime) -> None:
    """One record; as JSON and YAML it is an object."""
    if how in (Format.JSON, Format.YAML):
        print_data(_with_kind(view, to_document(record), how), how)
    else:
        print_records(view, [record], how, now)


def _with_kind(view: TableView[T], document: Document, how: Format) -> Document:
    """What `maoctl apply` takes says in YAML what it is; JSON is what the node has sent, unchanged."""
    return {"kind": view.kind, **document} if view.kind in APPLIED and how is Format.YAML else document


def print_data(data: Any, how: Format) -> None:
    """Any data as JSON or YAML."""
    if how is not Format.YAML:
        write(harmless_json(render_json(data, indent=2, ensure_ascii=False)) + "\n")
        return
    import yaml

    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_UNLIMITED)
    if harmless_json(text) != text:  # a plain scalar cannot hold an escape: quote all that is not ASCII
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=_UNLIMITED)
    write(unmarked(text))


def print_table(view: TableView[T], records: Sequence[T], how: Format, now: datetime) -> None:
    """A table; when there is nothing to show, stdout stays empty and stderr says so."""
    if not records:
        say(f"No {view.kind} to show.")
        return
    columns = [column for column in view.columns if how is Format.WIDE or not column.wide]
    rows = [[harmless_line(plain(column.cell(record, now))) for column in columns] for record in records]
    _print_rows([column.title for column in columns], [column.keep_whole for column in columns], rows)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Two columns without a heading: name and value (one line or several); empty values are left out."""
    rows = [[harmless_line(name), harmless(value)] for name, value in facts if value]
    if rows:
        _print_rows(["", ""], [True, False], rows, heading=False)


def flatten_facts(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A document flattened to name and value, nested names joined by a dot."""
    facts: list[tuple[str, str]] = []
    for key, value in document.items():
        nested = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(i, dict) for i in value)
        )
        if nested:
            items = (
                value if isinstance(value, dict) else {str(index): item for index, item in enumerate(value)}
            )
            facts += flatten_facts(items, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", plain(value)))
    return facts


def _print_rows(
    titles: Sequence[str], whole: Sequence[bool], rows: Sequence[Sequence[str]], heading: bool = True
) -> None:
    """`whole`: the columns that are neither folded nor cut."""
    from rich.table import Table
    from rich.text import Text

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold", padding=(0, 2, 0, 0))
    for index, (title, keep_whole) in enumerate(zip(titles, whole, strict=True)):
        width = max(len(row[index]) for row in rows) if keep_whole else None
        table.add_column(title, no_wrap=keep_whole, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(table, crop=False)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _console(stream: TextIO) -> Console:
    import os

    from rich.console import Console

    terminal = stream.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if colours else None,
        width=None if terminal else _UNLIMITED,
        highlight=False,
        emoji=False,
        markup=False,
    )


def write(text: str) -> None:
    """Data, to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Data as it is, to stdout; only where stdout is not a terminal or the person asked for it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Anything that is not data, to stderr."""
    sys.stderr.write(harmless(text) + "\n")
    sys.stderr.flush()
