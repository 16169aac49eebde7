"""Records that are voted as one value each: all their fields become one, and are taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .align import Version
from .numbers import numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series

    from .keys import Key

RECORD = "\0record"  # `load` lets no NUL through


def bind(table: DataFrame, fields: Sequence[str]) -> DataFrame:
    """With a column RECORD: the JSON text of the `fields`, with equal numbers spelt alike.

    A field that the record does not have is null there, unlike the texts `null` and empty.
    """
    import polars

    if not fields or not table.height:
        return table.with_columns(polars.lit(None, polars.String).alias(RECORD))
    one = polars.struct(_comparable(table, name) for name in fields)
    return table.with_columns(one.struct.json_encode().alias(RECORD))


def _comparable(table: DataFrame, name: str) -> Series:
    import polars

    if name not in table.columns:
        return polars.repeat(None, table.height, dtype=polars.String, eager=True).alias(name)
    value = numbers(table[name]).cast(polars.String)
    return polars.select(polars.coalesce(value, table[name])).to_series().alias(name)


def bind_all(versions: Sequence[Version], fields: Sequence[str]) -> list[Version]:
    return [replace(version, table=bind(version.table, fields)) for version in versions]


def loosen(
    table: DataFrame, versions: Sequence[Version], key: Key, fields: Sequence[str], blank: str
) -> DataFrame:
    """The fields of each RECORD, as the first of the versions has them; `blank` where none was decided."""
    import polars

    by = [*key.columns, RECORD]
    known = polars.concat(_spelt(version.table, by, fields) for version in versions)
    known = known.unique(by, keep="first", maintain_order=True)
    found = table.join(known, on=by, how="left", maintain_order="left", nulls_equal=True)
    undecided = polars.col(RECORD) == blank
    return found.with_columns(
        polars.when(undecided).then(polars.lit(blank)).otherwise(polars.col(name)).alias(name)
        for name in fields
    )


def _spelt(table: DataFrame, by: Sequence[str], fields: Sequence[str]) -> DataFrame:
    import polars

    if not table.height:
        return polars.DataFrame(schema=dict.fromkeys([*by, *fields], polars.String))
    absent = (name for name in fields if name not in table.columns)
    filled = table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)
    return filled.select(*by, *fields)
