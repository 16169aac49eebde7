"""Decides how the versions of a document are matched: the identity of lists, and the kinds of things.

From the outside inwards, since only what is matched can be compared inside: first which members tell the
entries of each list apart (identity.py), then what is at a place at which versions have different kinds.
What cannot be matched is decided as a whole, and a note says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .documents import Kind, Layout, Reader
from .identity import FoundLists, find_entries, find_identity


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
