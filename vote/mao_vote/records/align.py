"""Several versions of one table, brought to common places by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .keys import POSITION, Key

if TYPE_CHECKING:
    from polars import DataFrame, Series

_PLACE, _ROW = "\0place", "\0row"  # `load` lets no NUL through


@dataclass(frozen=True, slots=True)
class Version:
    """One reading of a file, and who brings it. `weight` is a sum of whole numbers, so it is exact."""

    table: DataFrame
    nodes: tuple[str, ...]
    weight: int

    @property
    def votes(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True, slots=True)
class Aligned:
    """The versions over the places of all their records.

    `keys` has a row a place. `rows`: of each version, at each place the number of its record, null where it
    has none; None in place of all of them when the version's records lie just as the places do.
    """

    versions: Sequence[Version]
    keys: DataFrame
    rows: Sequence[Series | None]

    def has(self, version: int, places: Series) -> Series:
        """Whether the version has records at the places."""
        import polars

        rows = self.rows[version]
        if rows is None:
            return polars.repeat(value=True, n=places.len(), eager=True)
        return rows.gather(places).is_not_null()

    def value(self, version: int, name: str, place: int) -> tuple[bool, str | None]:
        """Whether the version has the record, and what it says."""
        table, rows = self.versions[version].table, self.rows[version]
        row = place if rows is None else rows[place]
        if row is None or name not in table.columns:
            return row is not None, None
        return True, table[name][row]

    def column(self, version: int, name: str, places: Series | None = None) -> Series:
        """The values at all places or at those given; null where there is no such record or field."""
        import polars

        table, rows = self.versions[version].table, self.rows[version]
        if name not in table.columns:
            height = self.keys.height if places is None else places.len()
            return polars.repeat(None, height, dtype=polars.String, eager=True)
        if places is None:
            return table[name] if rows is None else table[name].gather(rows)
        return table[name].gather(places if rows is None else rows.gather(places))


def align(versions: Sequence[Version], key: Key) -> Aligned:
    """Places are those of the first version, then what only others have, in the order of the versions."""
    if not key.columns:
        return _by_position(versions)
    frames = [_keys(version.table, key) for version in versions]
    if all(frame.equals(frames[0]) for frame in frames[1:]):
        return Aligned(versions, frames[0], [None] * len(versions))
    return _by_key(versions, frames, key)


def places_of(table: DataFrame, aligned: Aligned, key: Key) -> Series:
    """The places of another table's records; null for those that no version has."""
    import polars

    if not key.columns:
        place = polars.int_range(polars.len(), dtype=polars.UInt32)
        return table.select(polars.when(place < aligned.keys.height).then(place).alias(_PLACE)).to_series()
    return _found(_keys(table, key), aligned.keys.with_row_index(_PLACE), key)


def _keys(table: DataFrame, key: Key) -> DataFrame:
    import polars

    if table.height == 0:
        return polars.DataFrame(schema=dict.fromkeys(key.columns, polars.String))
    return table.select(key.columns)


def _by_position(versions: Sequence[Version]) -> Aligned:
    import polars

    height = max(version.table.height for version in versions)
    place = polars.int_range(height, dtype=polars.UInt32, eager=True)
    rows = [
        None if version.table.height == height else place.set(place >= version.table.height, None)
        for version in versions
    ]
    return Aligned(versions, polars.DataFrame({POSITION: (place + 1).cast(polars.String)}), rows)


def _by_key(versions: Sequence[Version], frames: Sequence[DataFrame], key: Key) -> Aligned:
    import polars

    known = frames[0].with_row_index(_PLACE)
    places = [known[_PLACE]]
    for frame in frames[1:]:
        place = _found(frame, known, key)
        new = frame.filter(place.is_null()).with_row_index(_PLACE, offset=known.height)
        known = polars.concat([known, new])
        places.append(place.scatter(place.is_null().arg_true(), new[_PLACE]))
    return Aligned(versions, known.drop(_PLACE), [_inverse(place, known.height) for place in places])


def _found(frame: DataFrame, known: DataFrame, key: Key) -> Series:
    return frame.join(known, on=list(key.columns), how="left", maintain_order="left")[_PLACE]


def _inverse(places: Series, height: int) -> Series:
    """From row → place to place → row."""
    import polars

    rows = polars.DataFrame({_PLACE: places}).with_row_index(_ROW)
    everywhere = polars.DataFrame({_PLACE: polars.int_range(height, dtype=polars.UInt32, eager=True)})
    return everywhere.join(rows, on=_PLACE, how="left", maintain_order="left")[_ROW]
