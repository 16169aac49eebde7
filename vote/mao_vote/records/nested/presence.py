"""Decides which places of a document are in the result, from the outside inwards.

A place is in the result if most of the nodes that have what is around it have it. Hence no entry is put
together from several, and nothing is null that nobody calls null.

As in the vote on values, nodes that the definition declares to be a group have one voice together: if only
some of those that have what is around a place have the place itself, each speaks for its part of the voice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import lcm
from typing import TYPE_CHECKING, Literal

from mao_shared.models.round import Ties
from mao_vote.records.keys.align import Aligned
from mao_vote.records.keys.rows import FULL_COVERAGE, RowVote

from .documents import PATH
from .paths import is_entry

if TYPE_CHECKING:
    from polars import Series

MAX_DIVIDED = 30  # nodes of a group, up to which its voice is divided without a remainder


def vote_places(
    aligned: Aligned,
    incumbent: Series | None,
    *,
    blanks: Sequence[Collection[str]] = (),
    entries: Literal["majority", "any"] | int = "majority",
    groups: Sequence[Collection[str]] = (),
    ties: Ties = "likeliest",
) -> RowVote:
    """Decide which places are in the result: those that most have of those that have what is around it.

    Ties are decided as by `vote_rows`. A place is `partial` if only some of those nodes have it; what is
    inside of an object that a node lacks, or that is not in the result, is not.

    Args:
        incumbent: over all places, whether the previous ground truth has it.
        blanks: for each version, the paths at which it has null instead of an object or list.
        entries: how many nodes must have an entry of a list, as `rows` in a definition.
        groups: nodes that are declared to be dependent.
    """
    import polars

    versions, paths = aligned.versions, aligned.keys[PATH].to_list()
    index = {path: number for number, path in enumerate(paths)}
    parents = [index.get(path.rpartition("/")[0], -1) if path else -1 for path in paths]
    presence = _Presence(aligned, parents, blanks)
    votes, around = presence.count([version.votes for version in versions])
    weights, around_weights = presence.count([version.weight for version in versions])
    voices, around_voices = presence.count_voices(groups) if groups else (votes, around)
    before = None if incumbent is None else incumbent.to_list()
    kept, partial, undecided, contested, broken = ([False] * len(paths) for _ in range(5))
    for place in sorted(range(len(paths)), key=lambda place: paths[place].count("/")):
        parent = parents[place]
        if parent >= 0 and not kept[parent]:
            undecided[place], contested[place] = undecided[parent], contested[parent]
            continue
        partial[place] = votes[place] < around[place]
        if not paths[place]:  # the document itself
            kept[place] = True
        elif entries != "majority" and is_entry(paths[place]):
            kept[place] = votes[place] >= (1 if entries == "any" else entries)
        else:
            tied = contested[place] = 2 * voices[place] == around_voices[place]
            wins = 2 * weights[place] > around_weights[place] if before is None else before[place]
            undecided[place] = tied and before is None and 2 * weights[place] == around_weights[place]
            kept[place] = 2 * voices[place] > around_voices[place] or (tied and wins)
            if ties == "likeliest" and (undecided[place] or (tied and before is not None and not wins)):
                kept[place] = broken[place] = True
                undecided[place] = False
    in_result, in_some, without_result, after_tie, in_tie = (
        polars.Series(flag, dtype=polars.Boolean) for flag in (kept, partial, undecided, contested, broken)
    )
    counts = polars.Series(votes, dtype=polars.Int64)
    coverage = (FULL_COVERAGE,) * len(versions)
    return RowVote(in_result, in_some, without_result, after_tie, counts, coverage, in_tie)


class _Presence:
    """Which versions have which places, and what is around each.

    Args:
        parents: the place around each place, -1 if there is none.
    """

    def __init__(self, aligned: Aligned, parents: Sequence[int], blanks: Sequence[Collection[str]]) -> None:
        import polars

        paths = aligned.keys[PATH]
        every = polars.repeat(value=True, n=paths.len(), eager=True)
        around = polars.Series(parents, dtype=polars.Int64).replace(-1, None).cast(polars.UInt32)
        self.versions = aligned.versions
        self.has = [every if rows is None else rows.is_not_null() for rows in aligned.rows]
        inside = [
            has & ~paths.is_in(sorted(blank))
            for has, blank in zip(self.has, blanks or [()] * len(self.has), strict=True)
        ]
        self.has_around = [holds.gather(around).fill_null(value=True) for holds in inside]

    def count(self, amounts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the amounts of the versions that have each place, and of those that have what is around."""
        held, around = self._sums(amounts)
        return held.to_list(), around.to_list()

    def count_voices(self, groups: Sequence[Collection[str]]) -> tuple[list[int], list[int]]:
        """Return the same for voices, in parts that divide each group's voice by its nodes that answer."""
        import polars

        families = _families(groups, {node for version in self.versions for node in version.nodes})
        voice = lcm(*range(1, min(max(map(len, families), default=1), MAX_DIVIDED) + 1))
        grouped = set[str]().union(*families)
        held, around = self._sums(
            [voice * sum(node not in grouped for node in version.nodes) for version in self.versions]
        )
        for family in families:
            members = [sum(node in family for node in version.nodes) for version in self.versions]
            own, answering = self._sums(members)
            held = held + (own * voice // answering.replace(0, None)).fill_null(0)
            around = around + (answering > 0).cast(polars.Int64) * voice
        return held.to_list(), around.to_list()

    def _sums(self, amounts: Sequence[int]) -> tuple[Series, Series]:
        import polars

        held = around = polars.repeat(0, self.has[0].len(), dtype=polars.Int64, eager=True)
        for amount, has, has_around in zip(amounts, self.has, self.has_around, strict=True):
            held = held + has.cast(polars.Int64) * amount
            around = around + has_around.cast(polars.Int64) * amount
        return held, around


def _families(groups: Sequence[Collection[str]], nodes: Collection[str]) -> list[set[str]]:
    """Return the groups of these nodes; those that have a node in common are one."""
    families: list[set[str]] = []
    for group in groups:
        found = {node for node in nodes if node in group}
        joined = found.union(*(family for family in families if family & found))
        families = [*(family for family in families if not family & found), joined]
    return [family for family in families if len(family) > 1]
