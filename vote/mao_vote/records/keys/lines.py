"""Matches the lines of a file's versions by content, for records that have no key.

Two versions are matched as by patience diff (B. Cohen, https://bramcohen.livejournal.com/73318.html): lines
that both have exactly once are anchors, as far as they are in the same order (the longest increasing
subsequence). Between two anchors this is repeated with what both have once there, then with what both have
equally often there, then with the column that anchors most lines. What remains between two anchors matches
by position, so that a changed line is compared with what it was.

The work is bounded: each of a few passes joins the lines that are not matched yet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Series

MAX_LINES = 3_000_000
"""Of all versions together; more lines are matched only by their equal beginnings and ends, and position."""
_MAX_PASSES = 8
_MAX_COLUMNS = 8  # leftmost columns that may anchor lines which differ as a whole
_LINE, _ROW, _GAP, _NTH, _COUNT, _AT = "\0line", "\0row", "\0gap", "\0nth", "\0count", "\0at"


def align_lines(
    tables: Sequence[DataFrame], names: Sequence[str], votes: Sequence[int]
) -> tuple[list[Series], int]:
    """Return for each table the place of each of its rows, and how many places there are.

    Equal lines have the same place as far as their order allows; in each table places increase. The version
    that has most of what most have is matched with each of the others.

    Args:
        names: the columns that count; a table may lack some.
    """
    import polars

    frames = [line_frame(table, names) for table in tables]
    by_content = sum(frame.height for frame in frames) <= MAX_LINES
    order = _by_support(frames, votes) if by_content else list(range(len(frames)))
    known = frames[order[0]]
    places = {order[0]: polars.int_range(known.height, dtype=polars.Int64, eager=True)}
    for version in order[1:]:
        at = match_lines(known, frames[version], places[order[0]], by_content=by_content)
        if at.null_count():
            known, moved, at = _insert(known, frames[version], at)
            places = {number: moved.gather(place) for number, place in places.items()}
        places[version] = at
    return [places[version] for version in range(len(tables))], known.height


def line_frame(table: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return the lines of a table as text and as the leftmost columns; null in columns that it lacks."""
    import polars

    if not table.height:
        return polars.DataFrame(schema=dict.fromkeys([_LINE, *names[:_MAX_COLUMNS]], polars.String))
    absent = [name for name in names if name not in table.columns]
    filled = table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)
    cells = [polars.concat_str(polars.lit("="), name).fill_null("") for name in names]  # null is no text
    line = polars.concat_str(cells, separator="\0") if cells else polars.lit("")  # `load` lets no NUL through
    return filled.select(line.alias(_LINE), *names[:_MAX_COLUMNS])


def _by_support(frames: Sequence[DataFrame], votes: Sequence[int]) -> list[int]:
    """Return the versions, first that with most lines that most have, less its others."""
    import polars

    cast = polars.col(_COUNT)
    lines = [
        frame.select(_LINE).unique().with_columns(polars.lit(vote, polars.Int64).alias(_COUNT))
        for frame, vote in zip(frames, votes, strict=True)
    ]
    support = polars.concat(lines).group_by(_LINE).agg(cast.sum())
    in_most = support.filter(2 * cast > sum(votes)).select(_LINE)
    shared = [frame.join(in_most, on=_LINE, how="semi").height for frame in frames]
    return sorted(
        range(len(frames)), key=lambda version: (frames[version].height - 2 * shared[version], version)
    )


def _insert(known: DataFrame, other: DataFrame, at: Series) -> tuple[DataFrame, Series, Series]:
    """Return the known lines with those of another version that are new, each after what it follows there.

    Also returns where the known lines are then, and where the other version's are.
    """
    import polars

    after = at.fill_null(strategy="forward").fill_null(-1)
    new = at.is_null()
    old_lines = known.with_columns(
        polars.int_range(polars.len(), dtype=polars.Int64).alias(_AT),
        polars.lit(-1, polars.Int64).alias(_ROW),
    )
    numbered = other.with_columns(after.alias(_AT)).with_columns(
        polars.int_range(polars.len(), dtype=polars.Int64).alias(_ROW)
    )
    together = polars.concat([old_lines, numbered.filter(new)]).sort(_AT, _ROW, maintain_order=True)
    place = together.select(_AT, _ROW).with_row_index(_NTH).cast(polars.Int64)
    moved = place.filter(polars.col(_ROW) < 0)[_NTH]
    inserted = place.filter(polars.col(_ROW) >= 0).sort(_ROW)[_NTH]
    at = at.set(new, None)
    at = polars.select(moved.gather(at).alias(_AT)).to_series().scatter(new.arg_true(), inserted)
    return together.drop(_AT, _ROW), moved, at


def match_lines(
    known: DataFrame, other: DataFrame, first: Series | None = None, *, by_content: bool = True
) -> Series:
    """Return for each line of `other` the row of the line in `known` that it corresponds to, null if none.

    Rows increase. Both come from `line_frame`.

    Args:
        first: the rows of `known` that are searched before the others, which a single version may have added.
    """
    matching = _Matching(known, other)
    if first is None or first.len() == known.height:
        first = None
        matching.trim()
    else:
        preferred = _Matching(known[first], other)
        preferred.trim()
        if by_content:
            preferred.anchor_lines()
        matching.take(first.gather(preferred.at))
    if by_content:
        matching.anchor_lines()
        if matching.anchor_by_column(known.columns[1:]) and matching.anchor(_LINE, once=True):
            matching.extend()
    if first is not None:
        matching.match_equal_gaps(first)
    matching.match_positions()
    return matching.at


class _Matching:
    """Lines of `other` with rows of `known`: `at` has the row, null if not matched yet, and increases."""

    def __init__(self, known: DataFrame, other: DataFrame) -> None:
        import polars

        self.known, self.other = (
            frame.with_row_index(_ROW).cast({_ROW: polars.Int64}) for frame in (known, other)
        )
        self.at = polars.repeat(None, other.height, dtype=polars.Int64, eager=True)
        self._rest: tuple[DataFrame, DataFrame] | None = None

    def _match(self, pairs: DataFrame) -> int:
        """Match pairs of rows of `known` (_AT) and `other` (_ROW)."""
        self.at = self.at.scatter(pairs[_ROW], pairs[_AT])
        self._rest = None
        return pairs.height

    def rest(self) -> tuple[DataFrame, DataFrame]:
        """Return what is not matched of both; _GAP counts the anchors before, _NTH the lines since then."""
        import polars

        if self._rest is None:
            rows = self.at.is_not_null().arg_true().cast(polars.Int64)
            taken = self.at.drop_nulls()
            sides = []
            for frame, anchors in ((self.known, taken), (self.other, rows)):
                is_free = polars.repeat(value=True, n=frame.height, eager=True)
                free = frame.filter(is_free.scatter(anchors, values=False))
                gap = anchors.search_sorted(free[_ROW]).alias(_GAP)
                nth = (polars.col(_ROW) - polars.col(_ROW).min().over(_GAP)).alias(_NTH)
                sides.append(free.with_columns(gap).with_columns(nth))
            self._rest = sides[0], sides[1]
        return self._rest

    def take(self, at: Series) -> None:
        """Start from what is matched already."""
        self.at = at

    def anchor_lines(self) -> None:
        """Match lines without equal, then those that are equally often there, and equal ones next to them."""
        self.extend()
        for _ in range(_MAX_PASSES):
            if not self.anchor(_LINE, once=True):
                break
        self.extend()
        if self.anchor(_LINE, once=False):
            self.extend()

    def trim(self) -> None:
        """Match what is equal at the beginning and at the end."""
        import polars

        height = min(self.known.height, self.other.height)
        known, other = self.known[_LINE], self.other[_LINE]
        differ = (known[:height] != other[:height]).arg_true()
        first = height if not differ.len() else differ[0]
        differ = (known.tail(height) != other.tail(height)).arg_true()
        last = min(height - first, height if not differ.len() else height - 1 - differ[-1])
        start = polars.int_range(first, dtype=polars.Int64, eager=True)
        end = polars.int_range(-last, 0, dtype=polars.Int64, eager=True)
        self._match(polars.DataFrame({_ROW: start, _AT: start}))
        self._match(polars.DataFrame({_ROW: end + self.other.height, _AT: end + self.known.height}))

    def extend(self) -> None:
        """Match equal lines right after an anchor, then right before one."""
        import polars

        ends = polars.col(_NTH).max().over(_GAP) - polars.col(_NTH)
        for nth in (polars.col(_NTH), ends):
            known, other = (side.select(_GAP, _LINE, _ROW, nth.alias(_NTH)) for side in self.rest())
            both = other.join(known.rename({_ROW: _AT}), on=[_GAP, _NTH, _LINE])
            run = both.sort(_GAP, _NTH).with_columns(
                polars.int_range(polars.len(), dtype=polars.Int64).over(_GAP).alias(_COUNT)
            )
            self._match(run.filter(polars.col(_NTH) == polars.col(_COUNT)))

    def anchor(self, name: str, *, once: bool) -> int:
        """Match lines that both sides have equally often between two anchors, and return how many.

        Of lines in different order, those of a longest increasing subsequence match. `once`: only lines that
        have no equal.
        """
        return self._match(self._anchors(name, once=once))

    def _anchors(self, name: str, *, once: bool) -> DataFrame:
        import polars

        by, order = [_GAP, name], polars.int_range(polars.len(), dtype=polars.Int64)
        sides = []
        for side in self.rest():
            if once:
                grouped = side.group_by(by).agg(polars.len().alias(_COUNT), polars.col(_ROW).first())
                sides.append(grouped.filter(polars.col(_COUNT) == 1))
            else:
                sides.append(
                    side.select(
                        _GAP, name, _ROW, polars.len().over(by).alias(_COUNT), order.over(by).alias(_NTH)
                    )
                )
        known, other = sides
        same = by if once else [*by, _NTH, _COUNT]
        pairs = other.join(known.rename({_ROW: _AT}), on=same, nulls_equal=True)
        pairs = pairs.select(_GAP, _ROW, _AT).sort(_ROW)
        if pairs[_AT].is_sorted():
            return pairs
        return pairs[_longest_increasing(pairs[_AT].to_list())]

    def anchor_by_column(self, names: Sequence[str]) -> int:
        """Match lines by the column with most anchors, where these are at least half of the lines in between.

        Returns how many.
        """
        import polars

        best = None
        for name in names:
            found = self._anchors(name, once=True)
            fewest = [side.group_by(_GAP).len(_COUNT) for side in self.rest()]
            sizes = polars.concat(fewest).group_by(_GAP).agg(polars.col(_COUNT).min())
            enough = found.group_by(_GAP).len(_NTH).join(sizes, on=_GAP)
            enough = enough.filter(2 * polars.col(_NTH) >= polars.col(_COUNT))
            found = found.join(enough, on=_GAP, how="semi")
            if best is None or found.height > best.height:
                best = found
        return 0 if best is None else self._match(best)

    def match_equal_gaps(self, rows: Series) -> None:
        """Match between two anchors with these rows in their order, where they are as many as the lines."""
        import polars

        known, other = self.rest()
        nth, size = polars.int_range(polars.len(), dtype=polars.Int64), polars.len()
        sides = [
            side.select(_GAP, _ROW, nth.over(_GAP).alias(_NTH), size.over(_GAP).alias(_COUNT))
            for side in (known.filter(polars.col(_ROW).is_in(rows.implode())), other)
        ]
        self._match(sides[1].join(sides[0].rename({_ROW: _AT}), on=[_GAP, _NTH, _COUNT]))

    def match_positions(self) -> None:
        """Match what is left between two anchors in its order."""
        known, other = (side.select(_GAP, _NTH, _ROW) for side in self.rest())
        self._match(other.join(known.rename({_ROW: _AT}), on=[_GAP, _NTH]))


def _longest_increasing(values: Sequence[int]) -> list[int]:
    """Return the indices of a longest increasing subsequence of different numbers, by patience sorting."""
    tops: list[int] = []  # the lowest last value of a subsequence of each length
    ends: list[int] = []  # its index
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_left(tops, value)
        before.append(ends[length - 1] if length else -1)
        tops[length : length + 1] = [value]
        ends[length : length + 1] = [index]
    found = []
    last = ends[-1] if ends else -1
    while last >= 0:
        found.append(last)
        last = before[last]
    return found[::-1]
