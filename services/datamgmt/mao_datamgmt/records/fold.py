"""Records as one value each, for votes that take a record whole from a node, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame

RECORD = "\0record"  # `load` lets no NUL through


def fold(table: DataFrame, names: Sequence[str]) -> DataFrame:
    """The fields of those names as JSON text in one column, `RECORD`; null where the table has none such."""
    import polars

    absent = [polars.lit(None, polars.String).alias(name) for name in names if name not in table.columns]
    whole = table.with_columns(absent).with_columns(polars.struct(names).struct.json_encode().alias(RECORD))
    return whole.drop(names)


def unfold(table: DataFrame, names: Sequence[str]) -> DataFrame:
    """The fields in columns again."""
    import polars

    record = polars.Struct(dict.fromkeys(names, polars.String))
    return table.with_columns(polars.col(RECORD).str.json_decode(record)).unnest(RECORD)


def folded_blank(names: Sequence[str], blank: str) -> str:
    """The record all of whose fields say `blank`."""
    return json.dumps(dict.fromkeys(names, blank))
