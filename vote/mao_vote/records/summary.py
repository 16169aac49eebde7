"""Describes the fields of a file: their types, how many nodes have values, which texts are no observation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mao_shared.models.round import FieldRule

from .cells.field_vote import Rules, VotedField
from .cells.table import leaf_names
from .fields.observed import contents
from .fields.types import FieldType
from .fields.values import infer_field, is_observed
from .keys.align import Aligned
from .nested.documents import PATH, VALUE
from .nested.sets import infer_set

if TYPE_CHECKING:
    from polars import Series

_MAX_SHOWN = 20  # texts that are no observation
_MAX_CHARACTERS = 100  # of each


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field with its type, and what the definition declares of it.

    `nodes`: how many have values; `missing`: texts in it that are no observation, but for the empty text.
    """

    name: str
    kind: FieldType
    declared: FieldRule
    nodes: int
    missing: Sequence[str]


def summarize_table(aligned: Aligned, fields: Iterable[VotedField], rules: Rules) -> Iterator[FieldSummary]:
    """Yield what the fields of a table's versions are; its volatile fields have no type."""
    for field in fields:
        if not field.volatile:
            columns = [aligned.column(version, field.name) for version in field.versions]
            votes = [aligned.versions[version].votes for version in field.versions]
            yield _summarize(field.name, columns, votes, rules)


def summarize_document(aligned: Aligned, rules: Rules) -> Iterator[FieldSummary]:
    """Yield what the values of a document are, by name as `leaf_names` returns it."""
    import polars

    names = leaf_names(aligned.keys[PATH].to_list(), rules.file.fields)
    votes = [version.votes for version in aligned.versions]
    texts = polars.DataFrame(
        [aligned.column(version, VALUE).alias(str(version)) for version in range(len(votes))]
    )
    known = texts.with_columns(name=polars.Series(names, dtype=polars.String)).filter(
        polars.any_horizontal(polars.col(texts.columns).is_not_null())
    )
    groups = known.partition_by("name", as_dict=True, include_key=False)
    for (name,), group in sorted(groups.items()):
        yield _summarize(str(name), group.get_columns(), votes, rules)


def _summarize(name: str, columns: Sequence[Series], votes: Sequence[int], rules: Rules) -> FieldSummary:
    declared, is_json = rules.field(name), rules.is_json
    kind = infer_field(name, columns, votes, declared, is_json=is_json)
    kind = infer_set(kind, columns, votes, is_json=is_json)
    nodes, missing = 0, set()
    for column, count in zip(columns, votes, strict=True):
        observed = is_observed(column, kind, is_json=is_json)
        nodes += count if observed.any() else 0
        unobserved = column.filter(~observed).drop_nulls().unique()
        missing |= {text.strip() for text in (contents(unobserved) if is_json else unobserved)}
    shown = sorted(text for text in missing - {"", "null"} if len(text) <= _MAX_CHARACTERS)
    return FieldSummary(name, kind, declared, nodes, shown[:_MAX_SHOWN])
