"""Which version's bytes serve for which record, so that undisputed data comes out of a vote as observed.

A record that a version has exactly as decided is taken from that version's bytes; of any other record the
cells that were decided otherwise are replaced in the bytes of the model, the version written as most are.
What no version has is written in the model's manner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .keys import Key

if TYPE_CHECKING:
    from polars import DataFrame, Series

_ROW = "\0row"  # `load` lets no NUL through
Changed = Callable[[str, int, Mapping[str, str | None]], str | None]
"""`(text, place, others)`: the model's text of a record with other cells, None where that cannot be.

`place`: of the record in the result. `others`: of each cell that was decided otherwise a record's text that
has it so, None where nobody's has.
"""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A version of a file, and its records. `columns`: the file's, where the table has only some of them."""

    content: bytes
    table: DataFrame
    columns: Sequence[str] = ()


def _row_positions(result: DataFrame, table: DataFrame, key: Key, places: Series) -> Series:
    """The number of each record in a version's table, null where it has none. `places`: in the result."""
    import polars

    if not key.columns:
        return places.set(places >= table.height, None)
    nowhere = polars.repeat(None, result.height, dtype=polars.UInt32, eager=True)
    if any(name not in table.columns for name in key.columns):
        return nowhere
    wanted, known = result.select(key.columns), table.select(key.columns)
    largest = places.max()
    if isinstance(largest, int) and largest < table.height and known[places].equals(wanted):
        return places
    found = wanted.join(known.with_row_index(_ROW), on=list(key.columns), how="left", maintain_order="left")
    return found[_ROW] if found.height == result.height else nowhere


def _unlike(result: DataFrame, table: DataFrame, rows: Series) -> dict[str, Series]:
    """Of each column whether the version's record says something else than the result."""
    import polars

    in_place = table.height == rows.len() and bool((rows.diff() == 1).all()) and rows[0] == 0
    there = table if in_place else table.select(polars.all().gather(rows))
    nothing = polars.repeat(None, result.height, dtype=polars.String, eager=True)
    return {
        name: there.get_column(name, default=nothing).ne_missing(result.get_column(name, default=nothing))
        for name in dict.fromkeys([*result.columns, *table.columns])
    }


def take_over(
    table: DataFrame,
    sources: Sequence[SourceFile],
    key: Key,
    raw_texts: Callable[[SourceFile], Series | None],
    changed: Changed,
) -> Series:
    """The text of each record as far as the sources' bytes serve; null where they do not.

    `raw_texts`: the texts of a source's records, None where they cannot serve.
    """
    import polars

    texts = polars.repeat(None, table.height, dtype=polars.String, eager=True)
    open_ = polars.int_range(table.height, dtype=polars.UInt32, eager=True)
    donors: list[_Donor] = []
    for source in sources:
        raw = raw_texts(source) if open_.len() else None
        if raw is None or len(raw) != source.table.height:
            if not donors:  # the model itself cannot serve
                return texts
            continue
        wanted = table if open_.len() == table.height else table[open_]
        rows = _row_positions(wanted, source.table, key, open_)
        differing = _unlike(wanted, source.table, rows)
        differs = polars.select(polars.any_horizontal(*differing.values())).to_series() | rows.is_null()
        texts = texts.scatter(open_.filter(~differs), raw.gather(rows.filter(~differs)))
        open_ = open_.filter(differs)
        donors = [each.only(differs) for each in [*donors, _Donor(raw.gather(rows), differing)]]
    if open_.len():
        patched = polars.Series(list(_patched(open_, donors, changed)), dtype=polars.String)
        texts = texts.scatter(open_, patched)
    return texts


@dataclass(frozen=True, slots=True)
class _Donor:
    """A source's records at the places that are still open, and which cells are decided otherwise."""

    texts: Series
    differing: dict[str, Series]

    def only(self, kept: Series) -> _Donor:
        differing = {name: column.filter(kept) for name, column in self.differing.items()}
        return _Donor(self.texts.filter(kept), differing)


def _patched(places: Series, donors: Sequence[_Donor], changed: Changed) -> Iterator[str | None]:
    """Records that nobody has just so: the model's, with cells of others. None where the model has none."""
    texts = [each.texts.to_list() for each in donors]
    differing = [{name: column.to_list() for name, column in each.differing.items()} for each in donors]
    for at, place in enumerate(places.to_list()):
        model = texts[0][at]
        if model is None:
            yield None
            continue
        cells: dict[str, str | None] = {}
        for name in (name for name, column in differing[0].items() if column[at]):
            has = (n for n in range(1, len(texts)) if texts[n][at] is not None and name in differing[n])
            donor = next((n for n in has if not differing[n][name][at]), None)
            cells[name] = None if donor is None else texts[donor][at]
        yield changed(model, place, cells)
