"""The cells in which nodes differ, made one by one as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from .election import WHOLE, Cell
from .records import RECORD, Aligned, Differences


class Cells(Sequence[Cell]):
    """First those about columns, then by record and field. Holds the tables, not the cells."""

    def __init__(self, aligned: Aligned, differences: Sequence[Differences], columns: Sequence[Cell]) -> None:
        self._aligned, self._differences, self._columns = aligned, differences, columns
        places = [
            (cell, field, row)
            for field, each in enumerate(differences)
            for row, cell in enumerate(each.cells["cell"])
        ]
        self._order = sorted(places)

    def __len__(self) -> int:
        return len(self._columns) + len(self._order)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number < len(self._columns):
            return self._columns[number]
        return self._cell(*self._order[number - len(self._columns)])

    def _cell(self, place: int, field: int, row: int) -> Cell:
        found = self._differences[field]
        chosen, why, contested = found.cells.row(row)[1:]
        values: dict[str, str | None] = {}
        for number, version in enumerate(self._aligned.versions):
            there, value = self._aligned.value(number, found.field, place)
            if why == "row":
                values |= dict.fromkeys(version.nodes, "row" if there else None)
            elif there:
                values |= dict.fromkeys(version.nodes, value)
        name = WHOLE if found.field == RECORD else found.field
        return Cell(self._aligned.keys.row(place), name, values, chosen, why, contested)
