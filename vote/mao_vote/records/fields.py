"""Which kind of values a field has: declared by the vote's definition, or inferred from all nodes' values.

The kind decides what a text means (`parse_values`): which texts are no observation, which are compared as
numbers (numbers, times, dates, durations) and which as words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mao_shared.models.round import FieldKind, FieldRule

from .numbers import numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series


@dataclass(frozen=True, slots=True)
class FieldType:
    """How the values of a field are read and compared.

    `unsure`: why the inference may be wrong, in words; empty if it is not. `tolerance`: values that differ by
    at most this agree, in the unit of `number` (seconds for times); `error`: the same as a fraction of the
    larger value; None if not declared.
    """

    kind: FieldKind
    source: Literal["declared", "inferred"] = "inferred"
    unsure: str = ""
    tolerance: float | None = None
    error: float | None = None

    @property
    def is_measure(self) -> bool:
        """True if values are compared as numbers of which one can be between two others."""
        return self.kind in ("integer", "number", "time", "date", "datetime", "duration")


def infer_field(
    name: str, columns: Sequence[Series], votes: Sequence[int], rule: FieldRule, *, is_json: bool
) -> FieldType:
    """Return the type of a field from the values of all versions.

    Args:
        columns: the field's texts in each version, which may have different lengths; null: no such field.
        votes: for each version, the number of nodes that have it.
        rule: what the definition declares.
        is_json: texts are JSON, in which `"7"` is a text and `7` a number.
    """
    import polars

    del name, votes, is_json
    texts = polars.concat([column.drop_nulls() for column in columns])
    texts = texts.filter(texts != "")
    parsed = numbers(texts)
    kind: FieldKind = "number" if texts.len() and not parsed.null_count() else "text"
    return FieldType(kind, tolerance=rule.tolerance, error=rule.error)


def parse_values(texts: Series, field: FieldType, *, is_json: bool) -> DataFrame:
    """Return `number` and `word` of each text, of which one is set; both are null if it is no observation.

    `number` is set for texts that are compared as numbers; times and durations in seconds, dates in days.
    Other texts have a `word`, which is equal for texts that count as the same value.
    """
    import polars

    del is_json
    number = numbers(texts) if field.is_measure else polars.repeat(None, texts.len(), dtype=polars.Float64)
    missing = (texts == "") | (texts == "null")
    text = polars.col("text")
    return (
        polars.DataFrame({"text": texts.set(missing.fill_null(value=True), None)})
        .with_columns(number=number)
        .select(
            polars.when(text.is_not_null()).then("number").alias("number"),
            polars.when(polars.col("number").is_null()).then(text).alias("word"),
        )
    )
