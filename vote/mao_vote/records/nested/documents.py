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

Whether a place is in the result is decided from the outside inwards: by most of the nodes that have what is
around it (`vote_places`). Hence no entry is put together from several, and nothing is null that nobody calls
null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mao_shared.models.round import FieldRule, FileRule
from mao_vote.records.keys.align import Aligned
from mao_vote.records.keys.rows import FULL_COVERAGE, RowVote
from mao_vote.records.reading.load import cell_text, escape_step

from .identity import Entries, FoundLists, find_entries, find_identity
from .paths import NamedFields, field_rule, is_entry, member_steps

if TYPE_CHECKING:
    from polars import DataFrame, Series

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

    def folds(self, pattern: str) -> Collection[str]:
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


def plan_layout(
    documents: Sequence[Any], votes: Sequence[int], reader: Reader, names: Sequence[str] = ()
) -> Layout:
    """Decide how versions of a document are matched.

    Args:
        documents: the versions, without what the definition leaves out.
        votes: for each version, the number of nodes that have it.
        names: how to call each version in notes.
    """
    planner = _Planner(reader, votes, names or [f"version {number + 1}" for number in range(len(votes))])
    planner.find_keys("", {number: {"": document} for number, document in enumerate(documents)})
    planner.find_kinds("", "", list(enumerate(documents)))
    return planner.layout


class _Planner:
    def __init__(self, reader: Reader, votes: Sequence[int], names: Sequence[str]) -> None:
        self.reader, self.votes, self.names = reader, votes, names
        self.keys: dict[str, tuple[str, ...]] = {}
        self.kinds: dict[str, Kind] = {}
        self.notes: list[str] = []
        self.layout = Layout(self.keys, self.kinds, self.notes)

    def find_keys(self, pattern: str, found: Mapping[int, Mapping[str, Any]]) -> None:
        """Find the identity of the lists of a pattern and below; `found`: version → path → value."""
        if self.reader.field(pattern).type is not None:
            return
        lists = {
            version: {path: value for path, value in values.items() if isinstance(value, list)}
            for version, values in found.items()
        }
        if any(lists.values()):
            self._find_key(
                pattern, [FoundLists(version, self.votes[version], at) for version, at in lists.items() if at]
            )
        below: dict[str, dict[int, dict[str, Any]]] = {}
        for version, values in found.items():
            for path, value in values.items():
                kind = self.reader.kind(self.layout, pattern, value)
                for step, pattern_step, _, inner in self.reader.children(self.layout, pattern, kind, value):
                    if isinstance(inner, dict | list):
                        of_version = below.setdefault(pattern_step, {}).setdefault(version, {})
                        of_version[f"{path}/{step}"] = inner
        for pattern_step, values_below in below.items():
            self.find_keys(f"{pattern}/{pattern_step}", values_below)

    def _find_key(self, pattern: str, found: Sequence[FoundLists]) -> None:
        members = {
            name: None
            for lists in found
            for entry in lists.entries()
            if isinstance(entry, dict)
            for name in entry
        }
        identity = find_identity(
            found,
            declared=self.reader.field(pattern).key,
            unfit=self.reader.unfit(pattern, members),
            folds=self.reader.folds(pattern),
        )
        if identity.key:
            self.keys[pattern] = identity.key
        elif identity.why and _differ(found):
            self.notes.append(
                f"decided as a whole: the entries of {pattern or 'the document'} {identity.why}"
            )

    def find_kinds(self, path: str, pattern: str, found: Sequence[tuple[int, Any]]) -> None:
        """Decide what is at a place and below, where versions have different kinds of things."""
        if all(value == found[0][1] for _, value in found[1:]):
            return
        is_null_a_value = self.reader.field(pattern).missing_is_value
        kinds: dict[int, Kind] = {
            version: self.reader.kind(self.layout, pattern, value)
            for version, value in found
            if value is not None or is_null_a_value
        }
        if len(set(kinds.values())) > 1:
            self._elect_kind(path, pattern, kinds, dict(found))
        elif kinds and len(kinds) < len(found):
            self.kinds[path] = next(iter(kinds.values()))
        kind = self.kinds.get(path) or next(iter(kinds.values()))
        below: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        fitting = [(version, value) for version, value in found if kinds.get(version) == kind]
        for version, value in fitting:
            for step, pattern_step, _, inner in self.reader.children(self.layout, pattern, kind, value):
                below.setdefault((step, pattern_step), []).append((version, inner))
        if (
            below
            and all(value for _, value in fitting)
            and not (kind == "list" and self.reader.entries_of_few)
            and self._have_nothing_in_common([version for version, _ in fitting], below.values())
        ):
            self.kinds[path] = "value"
            where = path or "the document"
            self.notes.append(f"decided as a whole: {where}, of which nothing inside is the same for most")
            return
        for (step, pattern_step), values in below.items():
            self.find_kinds(f"{path}/{step}", f"{pattern}/{pattern_step}", values)

    def _have_nothing_in_common(
        self, versions: Sequence[int], found: Collection[Sequence[tuple[int, Any]]]
    ) -> bool:
        """True if nothing inside of an object or list is in most of the versions that have it.

        What would be left of it, an empty object or list, is nothing that a node observed.
        """
        total = sum(self.votes[version] for version in versions)
        return all(2 * sum(self.votes[version] for version, _ in values) <= total for values in found)

    def _elect_kind(
        self, path: str, pattern: str, kinds: Mapping[int, Kind], values: Mapping[int, Any]
    ) -> None:
        votes: Counter[Kind] = Counter()
        for version, kind in kinds.items():
            votes[kind] += self.votes[version]
        kind, count = max(votes.items(), key=lambda found: found[1])
        where = path or "the document"
        if 2 * count <= votes.total():
            self.kinds[path] = "value"
            self.notes.append(f"decided as a whole: {where}, which is of no one kind for most")
            return
        self.kinds[path] = kind
        for version, other in kinds.items() if kind != "value" else ():
            if other != kind:
                why = self._misfit(pattern, kind, values[version])
                self.notes.append(f"{where} of {self.names[version]} does not count: {why}")

    def _misfit(self, pattern: str, kind: Kind, value: Any) -> str:
        if kind == "list" and isinstance(value, list):
            why = find_entries(value, self.keys[pattern], self.reader.folds(pattern))
            if isinstance(why, str):
                return why
        return f"most have {'an object' if kind == 'object' else 'a list'} there"


def _differ(found: Sequence[FoundLists]) -> bool:
    """True if two versions have different lists at a place."""
    first: dict[str, list[Any]] = {}
    return any(
        first.setdefault(path, items) != items for lists in found for path, items in lists.lists.items()
    )


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


def vote_places(
    aligned: Aligned,
    incumbent: Series | None,
    *,
    blanks: Sequence[Collection[str]] = (),
    entries: Literal["majority", "any"] | int = "majority",
) -> RowVote:
    """Decide which places are in the result: those that most nodes have of those that have what is around it.

    Ties are decided as by `vote_rows`. A place is `partial` if only some of those nodes have it; what is
    inside of an object that a node lacks, or that is not in the result, is not.

    Args:
        incumbent: over all places, whether the previous ground truth has it.
        blanks: for each version, the paths at which it has null instead of an object or list.
        entries: how many nodes must have an entry of a list, as `rows` in a definition.
    """
    import polars

    paths = aligned.keys[PATH].to_list()
    index = {path: number for number, path in enumerate(paths)}
    parents = [index.get(path.rpartition("/")[0], -1) if path else -1 for path in paths]
    votes, weights = [0] * len(paths), [0] * len(paths)
    inner, inner_weights = [0] * len(paths), [0] * len(paths)  # of versions that have what is inside, too
    for number, version in enumerate(aligned.versions):
        rows = aligned.rows[number]
        held = range(len(paths)) if rows is None else rows.is_not_null().arg_true().to_list()
        blank = blanks[number] if blanks else ()
        for place in held:
            votes[place] += version.votes
            weights[place] += version.weight
            if not blank or paths[place] not in blank:
                inner[place] += version.votes
                inner_weights[place] += version.weight
    total = sum(version.votes for version in aligned.versions)
    total_weight = sum(version.weight for version in aligned.versions)
    before = None if incumbent is None else incumbent.to_list()
    kept, partial, undecided, contested = ([False] * len(paths) for _ in range(4))
    for place in sorted(range(len(paths)), key=lambda place: paths[place].count("/")):
        parent = parents[place]
        if parent >= 0 and not kept[parent]:
            undecided[place], contested[place] = undecided[parent], contested[parent]
            continue
        around = total if parent < 0 else inner[parent]
        around_weight = total_weight if parent < 0 else inner_weights[parent]
        partial[place] = votes[place] < around
        if not paths[place]:  # the document itself
            kept[place] = True
        elif entries != "majority" and is_entry(paths[place]):
            kept[place] = votes[place] >= (1 if entries == "any" else entries)
        else:
            tied = contested[place] = 2 * votes[place] == around
            wins = 2 * weights[place] > around_weight if before is None else before[place]
            undecided[place] = tied and before is None and 2 * weights[place] == around_weight
            kept[place] = 2 * votes[place] > around or (tied and wins)
    flags = (kept, partial, undecided, contested)
    in_result, in_some, without_result, after_tie = (
        polars.Series(flag, dtype=polars.Boolean) for flag in flags
    )
    counts = polars.Series(votes, dtype=polars.Int64)
    coverage = (FULL_COVERAGE,) * len(aligned.versions)
    return RowVote(in_result, in_some, without_result, after_tie, counts, coverage)
