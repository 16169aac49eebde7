"""Describes the fields of a file: their types, how many nodes have values, which texts are no observation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from mao_shared.models.round import FieldRule

from .cells.field_vote import Rules, VotedField
from .cells.measures import Noise, estimate_noise
from .cells.memory import recall
from .cells.table import leaf_names
from .fields.observed import contents
from .fields.time_values import unwrapped
from .fields.types import FieldType
from .fields.values import infer_field, is_observed, parse_values
from .keys.align import Aligned, Version
from .nested.documents import PATH, VALUE
from .nested.sets import infer_set

if TYPE_CHECKING:
    from polars import Series

_MAX_SHOWN = 20  # texts that are no observation
_MAX_CHARACTERS = 100  # of each


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field with its type, and what the definition declares of it.

    `noise`: how far apart numbers may be and agree, from the cells in which the versions differ and those of
    earlier rounds. `nodes`: how many have values; `missing`: texts in it that are no observation, but for the
    empty text.
    """

    name: str
    kind: FieldType
    declared: FieldRule
    noise: Noise
    nodes: int
    missing: Sequence[str]


def summarize_table(aligned: Aligned, fields: Iterable[VotedField], rules: Rules) -> Iterator[FieldSummary]:
    """Yield what the fields of a table's versions are; its volatile fields have no type."""
    for field in fields:
        if not field.volatile:
            columns = [aligned.column(version, field.name) for version in field.versions]
            versions = [aligned.versions[version] for version in field.versions]
            yield _summarize(field.name, columns, versions, rules)


def summarize_document(aligned: Aligned, rules: Rules) -> Iterator[FieldSummary]:
    """Yield what the values of a document are, by name as `leaf_names` returns it."""
    import polars

    names = leaf_names(aligned.keys[PATH].to_list(), rules.file.fields)
    texts = polars.DataFrame(
        [aligned.column(version, VALUE).alias(str(version)) for version in range(len(aligned.versions))]
    )
    known = texts.with_columns(name=polars.Series(names, dtype=polars.String)).filter(
        polars.any_horizontal(polars.col(texts.columns).is_not_null())
    )
    groups = known.partition_by("name", as_dict=True, include_key=False)
    for (name,), group in sorted(groups.items()):
        yield _summarize(str(name), group.get_columns(), aligned.versions, rules)


def _summarize(
    name: str, columns: Sequence[Series], versions: Sequence[Version], rules: Rules
) -> FieldSummary:
    declared, is_json = rules.field(name), rules.is_json
    votes = [version.votes for version in versions]
    kind = infer_field(name, columns, votes, declared, is_json=is_json)
    kind = rules.with_error(infer_set(kind, columns, votes, is_json=is_json))
    nodes, missing = 0, set()
    for column, count in zip(columns, votes, strict=True):
        observed = is_observed(column, kind, is_json=is_json)
        nodes += count if observed.any() else 0
        unobserved = column.filter(~observed).drop_nulls().unique()
        missing |= {text.strip() for text in (contents(unobserved) if is_json else unobserved)}
    shown = sorted(text for text in missing - {"", "null"} if len(text) <= _MAX_CHARACTERS)
    noise = _find_noise(name, columns, versions, kind, rules) if kind.is_measure else Noise()
    return FieldSummary(name, kind, declared, noise, nodes, shown[:_MAX_SHOWN])


def _find_noise(
    name: str, columns: Sequence[Series], versions: Sequence[Version], kind: FieldType, rules: Rules
) -> Noise:
    """Estimate the noise of a field as its vote does.

    Args:
        columns: the field's texts in each version, by place.
    """
    import polars

    differ = reduce(or_, (other.ne_missing(columns[0]) for other in columns[1:]), columns[0].is_null())
    cells = differ.arg_true()
    texts = polars.concat(
        polars.DataFrame({"cell": cells, "text": column.gather(cells)}).with_columns(
            version=polars.lit(number, polars.UInt32), nodes=polars.lit(version.votes, polars.Int64)
        )
        for number, (column, version) in enumerate(zip(columns, versions, strict=True))
    )
    parsed = parse_values(texts["text"], kind, is_json=rules.is_json)
    ballots = texts.hstack(parsed).filter(polars.col("number").is_not_null())
    if kind.kind == "time":
        ballots = unwrapped(ballots)
    past = recall(rules.memory.get(name, ()), None, versions, kind, is_json=rules.is_json)
    return estimate_noise(ballots, kind, past)
