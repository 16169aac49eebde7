"""Turns objects inside of records into columns, so that they are voted by what is inside.

A field that is an object in most records, such as `stars`, stays as a column, whose text is `{}` where it is
an object; beside it there is a column for everything inside, named by its JSON pointer:

    {"id": 1, "stars": {"total": 5, "by": {"day": [1, 2]}}}

    id   stars   /stars/total   /stars/by   /stars/by/day
    1    {}      5              {}          [1,2]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mao_shared.json_text import parse_json
from mao_shared.models.round import FileRule
from mao_vote.records.reading.load import MAX_CELLS, MAX_COLUMNS, escape_step

from .documents import OBJECT, Layout, Reader, find_places
from .paths import field_rule, unescape_step

if TYPE_CHECKING:
    from polars import DataFrame, Series

_TEXT = "\0text"  # `load` lets no NUL through


def plan_object_fields(tables: Sequence[DataFrame], votes: Sequence[int], rule: FileRule) -> Layout:
    """Return which fields are voted by what is inside: those with objects in most records of most versions.

    None are if a field's own name looks like a pointer. A field that the definition gives a type, names as a
    key, ignores or calls volatile is one value.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    if any(name.startswith("/") for name in names):
        return Layout()
    whole = {*rule.key, *rule.ignore, *rule.volatile}
    found = [
        name
        for name in names
        if name not in whole
        and f"/{escape_step(name)}" not in whole
        and field_rule(rule.fields, name).type is None
        and _are_objects(tables, votes, name)
    ]
    fields: list[str] = []
    notes: list[str] = []
    width, height = len(names), max((table.height for table in tables), default=0)
    reader = Reader(rule)
    for name in found:
        texts = [table[name] for table in tables if name in table.columns]
        inside = len(_inside(texts, name, reader).columns) - 1
        if width + inside > MAX_COLUMNS or (width + inside) * height > MAX_CELLS:
            notes.append(f"decided as a whole: the objects in {name!r}, which have too many fields")
            continue
        width += inside
        fields.append(name)
    return Layout(notes=notes, object_fields=tuple(fields))


def _are_objects(tables: Sequence[DataFrame], votes: Sequence[int], name: str) -> bool:
    """True if a field has objects in most records of most versions that have values there."""
    total = counted = 0
    for table, count in zip(tables, votes, strict=True):
        if name not in table.columns:
            continue
        filled = table[name].drop_nulls()
        filled = filled.filter(filled != "null")
        if filled.len():
            objects = int(filled.str.starts_with("{").sum())
            total += count
            counted += count if 2 * objects > filled.len() else 0
    return 2 * counted > total


def _inside(columns: Sequence[Series], name: str, reader: Reader) -> DataFrame:
    """Return the distinct objects of a field, with a column for each place inside."""
    import polars

    texts = polars.concat(columns).unique(maintain_order=True).drop_nulls()
    texts = texts.filter(texts.str.starts_with("{"))
    at = f"/{escape_step(name)}"
    columns_inside: dict[str, dict[int, str]] = {}
    for row, text in enumerate(texts):
        for place in find_places(parse_json(text), Layout(), reader, at)[1:]:
            cell = OBJECT if place.kind == "object" else reader.text(place)
            columns_inside.setdefault(place.pattern, {})[row] = cell
    return polars.DataFrame({_TEXT: texts}).with_columns(
        polars.Series(pattern, [cells.get(row) for row in range(texts.len())], dtype=polars.String)
        for pattern, cells in columns_inside.items()
    )


def with_object_fields(table: DataFrame, fields: Sequence[str], reader: Reader) -> DataFrame:
    """Return a table with columns for what is inside of these fields."""
    import polars

    for name in fields:
        if name not in table.columns:
            continue
        inside = _inside([table[name]], name, reader)
        at = table.columns.index(name)
        added = table.select(name).join(
            inside, left_on=name, right_on=_TEXT, how="left", maintain_order="left"
        )
        column = table[name].set(table[name].str.starts_with("{").fill_null(value=False), OBJECT)
        before, after = table.columns[:at], table.columns[at + 1 :]
        table = polars.concat(
            [table.select(before), column.to_frame(), added.drop(name), table.select(after)], how="horizontal"
        )
    return table


def without_contradictions(table: DataFrame, fields: Sequence[str]) -> DataFrame:
    """Return a result without what is inside of something that was not decided to be an object."""
    import polars

    tops = {f"/{escape_step(name)}": name for name in fields}
    empty: list[str] = []
    for name in table.columns:
        around = name.rpartition("/")[0]
        if not name.startswith("/") or not around:
            continue
        holder = tops.get(around, around)
        if holder not in table.columns or holder in empty:
            empty.append(name)
            continue
        is_object = (table[holder] == OBJECT).fill_null(value=False)
        if not is_object.all():
            table = table.with_columns(polars.when(is_object).then(polars.col(name)).alias(name))
            if table[name].null_count() == table.height:
                empty.append(name)
    return table.drop(empty)


def top_field(name: str) -> str:
    """Return the field of a record in which a column's values are."""
    return unescape_step(name.split("/", 2)[1]) if name.startswith("/") else name
