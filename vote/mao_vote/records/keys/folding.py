"""Folds the columns of keys, in which texts that differ only in form are the same record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mao_shared.models.round import Fold
from mao_vote.records.fields import folding

if TYPE_CHECKING:
    from polars import DataFrame


def fold_columns(table: DataFrame, columns: Sequence[str], fold: Sequence[Fold] = ()) -> DataFrame:
    """Return only these columns, folded. A table without rows may lack them."""
    import polars

    if not table.height:
        return polars.DataFrame(schema=dict.fromkeys(columns, polars.String))
    return table.select(folding.fold_texts(table[name], fold) for name in columns)


def is_ascii(table: DataFrame, columns: Sequence[str]) -> bool:
    """True if texts of these columns can have no other form."""
    return all(folding.is_ascii(table[name]) for name in columns if name in table.columns)
