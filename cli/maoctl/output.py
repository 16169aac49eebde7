"""Records on stdout: tables for people, JSON and YAML for programs, `kind/name` for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from mao_shared.json_text import render_json, unmarked

from .text import harmless, harmless_json, harmless_line, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Record = dict[str, Any]
Cell = Callable[[Record, datetime], str]

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
class Column:
    """`cell` gives the text for a record and the present; `wide` columns are shown with `-o wide` only."""

    title: str
    cell: Cell
    wide: bool = False
    keep_whole: bool = False  # names and ids: neither folded nor cut, on a terminal either


@dataclass(frozen=True)
class TableView:
    """How one kind of record looks: `kind` and the field `key` make its name."""

    kind: str
    columns: Sequence[Column]
    key: str = "name"

    def name(self, record: Mapping[str, Any]) -> str:
        return f"{self.kind}/{record.get(self.key, '')}"


def field(path: str, words: Callable[[Any], str] = plain) -> Cell:
    """A cell for the value at `path` (`limits.memory`), empty where a part of the path is missing."""

    def cell(record: Record, _now: datetime) -> str:
        value: Any = record
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return words(value)

    return cell


def print_records(view: TableView, records: Sequence[Record], how: Format, now: datetime) -> None:
    """A list of records; as JSON and YAML it is a list, also when it is empty or has one record."""
    if how.for_people:
        print_table(view, records, how, now)
    elif how is Format.NAME:
        for record in records:
            write(harmless_line(view.name(record)) + "\n")
    else:
        print_data(list(records), how)


def print_record(view: TableView, record: Record, how: Format, now: datetime) -> None:
    """One record; as JSON and YAML it is an object."""
    if how in (Format.JSON, Format.YAML):
        print_data(record, how)
    else:
        print_records(view, [record], how, now)


def print_data(data: Any, how: Format) -> None:
    """Any data as JSON or YAML."""
    write(_yaml(data) if how is Format.YAML else _json(data))


def _json(data: Any) -> str:
    return harmless_json(render_json(data, indent=2, ensure_ascii=False)) + "\n"


def _yaml(data: Any) -> str:
    import yaml

    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_UNLIMITED)
    if (
        harmless_json(text) != text
    ):  # a plain scalar cannot hold an escape: let YAML quote all that is not ASCII
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=_UNLIMITED)
    return unmarked(text)


def print_table(view: TableView, records: Sequence[Record], how: Format, now: datetime) -> None:
    """A table; when there is nothing to show, stdout stays empty and stderr says so."""
    if not records:
        say(f"No {view.kind} to show.")
        return
    columns = [column for column in view.columns if how is Format.WIDE or not column.wide]
    rows = [[harmless_line(column.cell(record, now)) for column in columns] for record in records]
    _print_rows(columns, rows)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Two columns without a heading: name and value (one line or several); empty values are left out."""
    columns = [Column("", lambda *_: "", keep_whole=True), Column("", lambda *_: "")]
    rows = [[harmless_line(name), harmless(value)] for name, value in facts if value]
    if rows:
        _print_rows(columns, rows, heading=False)


def facts_of(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A record flattened to name and value, nested names joined by a dot."""
    facts: list[tuple[str, str]] = []
    for key, value in record.items():
        nested = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(i, dict) for i in value)
        )
        if nested:
            items = (
                value if isinstance(value, dict) else {str(index): item for index, item in enumerate(value)}
            )
            facts += facts_of(items, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", plain(value)))
    return facts


def _print_rows(columns: Sequence[Column], rows: Sequence[Sequence[str]], heading: bool = True) -> None:
    from rich.table import Table

    console = _console(sys.stdout)
    table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        width = max(len(row[index]) for row in rows) if column.keep_whole else None
        table.add_column(column.title, no_wrap=column.keep_whole, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*map(_styled, row))
    with console.capture() as captured:
        console.print(table, crop=False)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _styled(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=_STYLES.get(text, ""))


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
