"""Reuses the bytes of versions for the records of a result, so that undisputed data stays unchanged.

A record that a version has exactly as decided is copied from that version. In any other record, the cells
that were decided otherwise are replaced in the text of the model, the version in the style of most. A record
that the model does not have is generated in the model's style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mao_vote.records.keys.key import Key

if TYPE_CHECKING:
    from polars import DataFrame, Series

_ROW = "\0row"  # `load` lets no NUL through
Rows: TypeAlias = "Series"
"""For each record of the result, its row in a version, null if the version does not have it."""
Changed = Callable[[str, int, Mapping[str, str | None]], str | None]
"""`(text, place, others)` → the model's text of a record with other cells, None if that is not possible.

`place`: the record's position in the result. `others`: field decided otherwise → the text of a record that
has the decided value, None if no version has it.
"""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A version of a file and its records.

    `columns` are the file's, if the table lacks some of them. `rows`: where the result's records are in the
    table; by default they are found by the exact texts of their key, or by number.
    """

    content: bytes
    table: DataFrame
    columns: Sequence[str] = ()
    rows: Rows | None = None


def _row_positions(result: DataFrame, table: DataFrame, key: Key, places: Series) -> Series:
    """Return each record's row in a version's table, null if it has none. `places`: rows of the result."""
    import polars

    if not key.columns:
        return places.set(places >= table.height, None)
    no_rows = polars.repeat(None, result.height, dtype=polars.UInt32, eager=True)
    if any(name not in table.columns for name in key.columns):
        return no_rows
    expected, known = result.select(key.columns), table.select(key.columns)
    largest = places.max()
    if isinstance(largest, int) and largest < table.height and known[places].equals(expected):
        return places
    found = expected.join(known.with_row_index(_ROW), on=list(key.columns), how="left", maintain_order="left")
    return found[_ROW] if found.height == result.height else no_rows


def _differing_cells(result: DataFrame, table: DataFrame, rows: Series) -> dict[str, Series]:
    """Return for each column whether the version's cells differ from the result."""
    import polars

    in_place = table.height == rows.len() and bool((rows.diff() == 1).all()) and rows[0] == 0
    version = table if in_place else table.select(polars.all().gather(rows))
    nothing = polars.repeat(None, result.height, dtype=polars.String, eager=True)
    return {
        name: version.get_column(name, default=nothing).ne_missing(result.get_column(name, default=nothing))
        for name in dict.fromkeys([*result.columns, *table.columns])
    }


def take_over(
    table: DataFrame,
    sources: Sequence[SourceFile],
    key: Key,
    raw_texts: Callable[[SourceFile], Series | None],
    changed: Changed,
) -> Series:
    """Return the text of each record from the sources, the first of which is the model; null if none fits.

    Args:
        raw_texts: returns the texts of a source's records, None if they cannot be used.
        changed: replaces cells in the model's text of a record.
    """
    import polars

    unresolved = polars.int_range(table.height, dtype=polars.UInt32, eager=True)
    found: list[tuple[Series, Series]] = []  # places and their texts
    donors: list[_Donor] = []
    for source in sources:
        raw = raw_texts(source) if unresolved.len() else None
        if raw is None or len(raw) != source.table.height:
            if not donors:  # the model itself cannot be used
                break
            continue
        expected = table if unresolved.len() == table.height else table[unresolved]
        if source.rows is None:
            rows = _row_positions(expected, source.table, key, unresolved)
        else:
            rows = source.rows.gather(unresolved)
        differing = _differing_cells(expected, source.table, rows)
        differs = polars.select(polars.any_horizontal(*differing.values())).to_series() | rows.is_null()
        found.append((unresolved.filter(~differs), _gather_texts(raw, rows.filter(~differs))))
        unresolved = unresolved.filter(differs)
        donors = [donor.only(differs) for donor in donors]
        donors.append(_Donor.of(raw, rows, differing, differs))
    found.append((unresolved, _rest_of_texts(unresolved, donors, changed)))
    places = polars.concat(places for places, _ in found)
    texts = polars.concat(texts for _, texts in found)
    order = polars.int_range(table.height, dtype=polars.UInt32, eager=True)
    return texts.gather(order.clone().scatter(places, order))


def _rest_of_texts(places: Series, donors: Sequence[_Donor], changed: Changed) -> Series:
    """Return the texts of the records that no source has as decided; null if they cannot be put together."""
    import polars

    if not donors:
        return polars.repeat(None, places.len(), dtype=polars.String, eager=True)
    return polars.Series(list(_patch_records(places, donors, changed)), dtype=polars.String)


def _gather_texts(texts: Series, rows: Series) -> Series:
    """Return the texts at these rows; few ones in memory of their own, which lets go of all others."""
    import polars

    gathered = texts.gather(rows)
    if 2 * gathered.len() > texts.len():
        return gathered
    return gathered.to_frame("text").select(polars.concat_str("text", polars.lit("")))["text"]


@dataclass(frozen=True, slots=True)
class _Donor:
    """A source's texts of the unresolved records, and which of its cells differ from the result."""

    texts: Series
    differing: dict[str, Series]

    @classmethod
    def of(cls, raw: Series, rows: Series, differing: Mapping[str, Series], kept: Series) -> _Donor:
        """Return a source's texts at the `kept` rows."""
        cells = {name: column.filter(kept) for name, column in differing.items()}
        return cls(_gather_texts(raw, rows.filter(kept)), cells)

    def only(self, kept: Series) -> _Donor:
        differing = {name: column.filter(kept) for name, column in self.differing.items()}
        return _Donor(_gather_texts(self.texts, kept.arg_true()), differing)


def _patch_records(places: Series, donors: Sequence[_Donor], changed: Changed) -> Iterator[str | None]:
    """Yield the texts of records that no source has as decided: the model's, with cells of other sources.

    None is yielded for a record that the model does not have.
    """
    texts = [donor.texts.to_list() for donor in donors]
    differing = [{name: column.to_list() for name, column in donor.differing.items()} for donor in donors]
    for index, place in enumerate(places.to_list()):
        model = texts[0][index]
        if model is None:
            yield None
            continue
        cells: dict[str, str | None] = {}
        for name in (name for name, column in differing[0].items() if column[index]):
            has = (n for n in range(1, len(texts)) if texts[n][index] is not None and name in differing[n])
            donor = next((n for n in has if not differing[n][name][index]), None)
            cells[name] = None if donor is None else texts[donor][index]
        yield changed(model, place, cells)
