"""Tells sets from lists: whether the order in which the nodes have the members of a list means anything.

Lists of different nodes for the same place are compared by the order of the members that both have. If the
order means nothing, as that of tags, it differs often, and about half of all pairs of members are inverted.
In a ranking or a path most nodes have one order, from which the others differ by an entry that was moved,
replaced or put in between. A node that has everything backwards, such as longitude before latitude, has an
order too. Lists with repeated members and lists of fractions, which are measured, are never sets.
"""

from __future__ import annotations

import re
from bisect import bisect, insort
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from mao_shared.json_text import parse_json
from mao_shared.models.round import Fold
from mao_vote.records.fields.observed import MAX_ODD, contents
from mao_vote.records.fields.types import FieldType
from mao_vote.records.reading.load import cell_text

from .identity import fold_json_texts

if TYPE_CHECKING:
    from polars import DataFrame, Series

MAX_COMPARISONS = 5_000  # of one list with another, at evenly spaced places
MAX_VERSIONS = 12  # those of most nodes
MAX_MEMBERS = 200  # evenly spaced ones, whose order is compared
MIN_REORDERED = 1 / 3  # of the pairs of nodes, those that have the members in different orders
MIN_INVERTED = 0.35  # of the pairs of members in such lists; 1/2 by chance, 1/3 for two swapped of three
MAX_INVERTED = 0.9  # between two nodes; if more are, one has the other's order backwards
MIN_EVIDENCE = 10  # pairs of members whose order could have been the same
SURE_EVIDENCE = 3 * MIN_EVIDENCE
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MEASURED = re.compile(r"-?(?:[0-9]+(?:\.|[eE]).*|NaN|Infinity)")
Members = tuple[str, ...]


class _Comparison(NamedTuple):
    """Two versions' lists at a place: how many pairs of common members there are, and inverted ones.

    `is_edited`: members differ, and those that are the same are too few or in the same order.
    """

    place: int
    versions: tuple[int, int]
    pairs: int
    inverted: int
    is_edited: bool


@dataclass(slots=True)
class _Orders:
    """What the comparisons show, in pairs of nodes at a place. `evidence`: as of MIN_EVIDENCE."""

    same: int = 0
    edited: int = 0
    reordered: int = 0
    pairs: int = 0
    inverted: int = 0
    evidence: int = 0

    @property
    def often_differ(self) -> bool:
        total = self.same + self.edited + self.reordered
        return self.reordered >= MIN_REORDERED * total and self.reordered > self.edited

    @property
    def are_arbitrary(self) -> bool:
        return (
            self.often_differ and self.inverted >= MIN_INVERTED * self.pairs and self.evidence >= MIN_EVIDENCE
        )

    @property
    def are_surely_arbitrary(self) -> bool:
        return (
            self.evidence >= SURE_EVIDENCE
            and 2 * self.same <= self.reordered
            and 3 * self.edited <= self.reordered
        )


def infer_set(
    field: FieldType, columns: Sequence[Series], votes: Sequence[int], *, is_json: bool
) -> FieldType:
    """Return the type of a set instead of the inferred type of a list, where the order means nothing.

    Args:
        columns: the field's texts in each version, aligned: equal rows are the same place.
        votes: for each version, the number of nodes that have it.
    """
    if field.kind != "list" or field.source == "declared" or sum(votes) < 2:
        return field
    texts = _sample(columns[:MAX_VERSIONS], is_json=is_json)
    votes = votes[: len(texts.columns)]
    lists = [_read_lists(texts[name], field.fold) for name in texts.columns]
    fitting = sum(count for of_version, count in zip(lists, votes, strict=True) if _may_be_sets(of_version))
    if 2 * fitting <= sum(votes):
        return field
    orders = _weigh(lists, votes)
    if orders.are_arbitrary:
        doubt = "" if orders.are_surely_arbitrary else "declare list if the order of its members counts"
        return replace(field, kind="set", unsure="; ".join(filter(None, (field.unsure, doubt))))
    if orders.reordered and orders.often_differ:
        doubt = "nodes have the same members in another order: declare set if the order does not count"
        return replace(field, unsure="; ".join(filter(None, (field.unsure, doubt))))
    return field


def _sample(columns: Sequence[Series], *, is_json: bool) -> DataFrame:
    """Return the texts of evenly spaced places at which several versions have a list."""
    import polars

    texts = polars.DataFrame(
        {str(version): contents(column) if is_json else column for version, column in enumerate(columns)}
    )
    is_list = [column.str.contains(r"^\s*\[").fill_null(value=False) for column in texts.iter_columns()]
    holders = polars.select(
        polars.sum_horizontal(*(flag.cast(polars.UInt32) for flag in is_list))
    ).to_series()
    several = texts.filter(holders > 1) if len(columns) > 1 else texts.filter(holders > 0)
    places = max(MAX_COMPARISONS // max(len(columns) * (len(columns) - 1) // 2, 1), 1)
    return several.gather_every(-(-several.height // places) or 1)


def _read_lists(texts: Series, folds: Collection[Fold]) -> list[Members | None]:
    """Return the members of each list, () where there is none, None for what is no list of scalars."""
    known: dict[str | None, Members | None] = {None: (), "": (), "null": ()}
    found = []
    for text in texts:
        if text not in known:
            known[text] = _read_list(text, folds)
        found.append(known[text])
    return found


def _read_list(text: str, folds: Collection[Fold]) -> Members | None:
    bare = _STRING.sub("", text)
    if bare.count("[") > 1 or "{" in bare:
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    return tuple(fold_json_texts([cell_text(item) for item in value], folds))


def _may_be_sets(lists: Sequence[Members | None]) -> bool:
    """True if hardly any list of a version has a member twice, or one that no set has."""
    read = [members for members in lists if members != ()]
    odd = sum(
        members is None
        or len(set(members)) < len(members)
        or any(_MEASURED.fullmatch(member) for member in members)
        for members in read
    )
    return bool(read) and odd <= MAX_ODD * len(read)


def _weigh(lists: Sequence[Sequence[Members | None]], votes: Sequence[int]) -> _Orders:
    found = list(_compare_all(lists))
    pairs, inverted = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for one in found:
        pairs[one.versions] += one.pairs
        inverted[one.versions] += one.inverted
    orders = _Orders()
    for version, count in enumerate(votes):  # the nodes of one version
        orders.same += count * (count - 1) // 2 * sum(len(members or ()) > 1 for members in lists[version])
    reordered: dict[int, set[Members | None]] = {}
    for one in found:
        first, second = one.versions
        nodes = votes[first] * votes[second]
        is_backwards = inverted[one.versions] > MAX_INVERTED * pairs[one.versions]
        if one.is_edited:
            orders.edited += nodes
        elif is_backwards or not one.inverted:
            orders.same += nodes
        else:
            orders.reordered += nodes
            orders.pairs += one.pairs
            orders.inverted += one.inverted
            reordered.setdefault(one.place, set()).update(
                lists[version][one.place] for version in one.versions
            )
    for found_there in reordered.values():
        size = min(len(members or ()) for members in found_there)
        orders.evidence += (len(found_there) - 1) * size * (size - 1) // 2
    return orders


def _compare_all(lists: Sequence[Sequence[Members | None]]) -> Iterator[_Comparison]:
    """Compare the lists of several members of all pairs of versions, place by place."""
    for place, of_place in enumerate(zip(*lists, strict=True)):
        several = [
            (version, members) for version, members in enumerate(of_place) if members and len(members) > 1
        ]
        for (first, one), (second, other) in combinations(several, 2):
            yield _compare(place, (first, second), one, other)


def _compare(place: int, versions: tuple[int, int], one: Members, other: Members) -> _Comparison:
    if one == other:
        count = min(len(one), MAX_MEMBERS)
        return _Comparison(place, versions, count * (count - 1) // 2, 0, is_edited=False)
    at = {member: number for number, member in enumerate(other)}
    common = [at[member] for member in dict.fromkeys(one) if member in at]
    if 2 * len(common) < max(len(one), len(other)):
        return _Comparison(place, versions, 0, 0, is_edited=True)
    is_edited = len(common) < max(len(one), len(other))
    compared = common[:: -(-len(common) // MAX_MEMBERS)]
    inverted = _count_inverted(compared)
    return _Comparison(
        place,
        versions,
        len(compared) * (len(compared) - 1) // 2,
        inverted,
        is_edited=is_edited and not inverted,
    )


def _count_inverted(numbers: Sequence[int]) -> int:
    """Return how many pairs of different numbers are in falling order."""
    seen: list[int] = []
    count = 0
    for number in numbers:
        count += len(seen) - bisect(seen, number)
        insort(seen, number)
    return count
