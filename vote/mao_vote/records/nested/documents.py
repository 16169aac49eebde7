"""Turns JSON documents into tables of their values, so that values of the same thing are compared.

A table has the columns path, value and volatile, and a row for each object, list and value; objects and lists
whose entries have an identity (identity.py) have neither a value nor a volatile one:

    {"total": 2, "entries": [{"name": "x", "tags": ["b", "a"]}]}

    (the document)                    null
    /total                            2
    /entries                          null
    /entries/[name="x"]               null
    /entries/[name="x"]/name          "x"
    /entries/[name="x"]/tags          ["b","a"]

Other lists are one value. So is what the nodes have different kinds of things for, unless more have one kind
than any other; a node that has another kind there has no row. A null where most have an object or a list is a
row without rows below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mao_shared.models.round import FieldRule, FileRule, Fold
from mao_vote.records.reading.load import cell_text, escape_step

from .identity import Entries, find_entries
from .paths import NamedFields, field_rule, member_steps

if TYPE_CHECKING:
    from polars import DataFrame

OBJECT = "{}"
PATH, VALUE, VOLATILE = "path", "value", "volatile"
Kind = Literal["object", "list", "value"]
"""What is at a place. A list without identity is a value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the versions of a file are matched, decided from all of them.

    `keys`: pattern of a list → the members that identify its entries. `kinds`: path → what is there, for
    places where versions have different kinds. `notes`: what is decided as a whole, and why.
    `object_fields`: of records, the fields that are voted by what is inside (object_fields.py).
    """

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    notes: Sequence[str] = ()
    object_fields: Sequence[str] = ()


class Place(NamedTuple):
    """A value of a document. `pointer`: its JSON pointer in this version.

    `kind`: None for a value that is no ballot, since most versions have another kind of thing there.
    `is_blank`: null where most have an object or list.
    """

    path: str
    pattern: str
    pointer: str
    kind: Kind | None
    value: Any
    is_volatile: bool
    is_blank: bool


@dataclass(frozen=True, slots=True)
class Leaves:
    """A document's table. `blanks`: paths of nulls where most versions have an object or a list.

    `is_complete`: every value of the document is in the table.
    """

    table: DataFrame
    blanks: frozenset[str]
    is_complete: bool


class Reader:
    """Reads documents as a definition says: what to leave out, and what identifies entries.

    Remembers the entries of each list. A reader is used with one layout.
    """

    def __init__(self, rule: FileRule) -> None:
        self.ignored, self.volatile = NamedFields(rule.ignore), NamedFields(rule.volatile)
        self._fields, self._folds = rule.fields, tuple(rule.fold)
        self.entries_of_few = rule.rows != "majority"
        self._entries: dict[int, tuple[list[Any], Entries | None]] = {}

    def field(self, pattern: str) -> FieldRule:
        return field_rule(self._fields, pattern)

    def folds(self, pattern: str) -> Collection[Fold]:
        return (*self._folds, *self.field(pattern).fold)

    def unfit(self, pattern: str, names: Collection[str]) -> set[str]:
        """Return the members of a list's entries that are expected to differ."""
        return {name for name in names if f"{pattern}/*/{escape_step(name)}" in self.volatile}

    def entries(self, layout: Layout, pattern: str, items: list[Any]) -> Entries | None:
        """Return a list's entries by step, None if they have no identity."""
        if (key := layout.keys.get(pattern)) is None:
            return None
        known = self._entries.get(id(items))
        if known is None:
            found = find_entries(items, key, self.folds(pattern))
            known = self._entries[id(items)] = items, None if isinstance(found, str) else found
        return known[1]

    def kind(self, layout: Layout, pattern: str, value: Any) -> Kind:
        """Return the kind of a value by itself."""
        if isinstance(value, dict):
            return "value" if self.field(pattern).type is not None else "object"
        if isinstance(value, list) and self.entries(layout, pattern, value) is not None:
            return "list"
        return "value"

    def children(
        self, layout: Layout, pattern: str, kind: Kind | None, value: Any
    ) -> Iterator[tuple[str, str, str, Any]]:
        """Yield what is inside of an object or list: steps of its path, pattern and pointer, value."""
        if kind == "object" and isinstance(value, dict):
            for name, inner in value.items():
                step, pointer_step = member_steps(name)
                yield step, pointer_step, pointer_step, inner
        elif kind == "list" and isinstance(value, list):
            entries = self.entries(layout, pattern, value)
            for number, (step, inner) in enumerate((entries or {}).items()):
                yield step, "*", str(number), inner

    def text(self, place: Place) -> str:
        """Return the text by which a value is compared, without the volatile members inside of it."""
        if place.is_volatile:
            return cell_text(place.value)
        return cell_text(self.volatile.without(place.value, place.pointer, place.pattern, keep_empty=True))


def find_places(document: Any, layout: Layout, reader: Reader, at: str = "") -> list[Place]:
    """Return the places of a document, from the outside inwards and in its order.

    Args:
        at: the path, pattern and pointer of the document itself, if it is inside of something.
    """
    places: list[Place] = []

    def visit(path: str, pattern: str, pointer: str, value: Any, is_volatile: bool) -> None:
        own = reader.kind(layout, pattern, value)
        elected = layout.kinds.get(path, own)
        is_blank = value is None and elected != "value"
        kind = elected if own == elected or elected == "value" or is_blank else None
        places.append(Place(path, pattern, pointer, kind, value, is_volatile, is_blank))
        for step, pattern_step, pointer_step, inner in reader.children(layout, pattern, kind, value):
            below = f"{pattern}/{pattern_step}", f"{pointer}/{pointer_step}"
            name = pointer_step if pattern_step == "*" else pattern_step
            changes = is_volatile or reader.volatile.has(below[1], below[0], name)
            visit(f"{path}/{step}", *below, inner, changes)

    visit(at, at, at, document, at in reader.volatile)
    return places


def empty_leaves() -> DataFrame:
    import polars

    return polars.DataFrame(schema=dict.fromkeys((PATH, VALUE, VOLATILE), polars.String))


def iter_leaves(table: DataFrame) -> Iterator[tuple[str, str | None]]:
    """Yield the path and text of each place in a document's table, None for objects and lists."""
    for path, value, volatile in table.select(PATH, VALUE, VOLATILE).iter_rows():
        yield path, value if volatile is None else volatile


def leaf_table(document: Any, layout: Layout, reader: Reader) -> Leaves:
    """Return the table of a document."""
    import polars

    columns: dict[str, list[str | None]] = {PATH: [], VALUE: [], VOLATILE: []}
    places = find_places(document, layout, reader)
    for place in places:
        if place.kind is None:
            continue
        text = reader.text(place) if place.kind == "value" else None
        columns[PATH].append(place.path)
        columns[VALUE].append(None if place.is_volatile else text)
        columns[VOLATILE].append(text if place.is_volatile else None)
    table = polars.DataFrame(columns, schema=dict.fromkeys(columns, polars.String))
    blanks = frozenset(place.path for place in places if place.is_blank)
    return Leaves(table, blanks, is_complete=not blanks and all(place.kind is not None for place in places))
