"""Widths of a table's columns on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GAP = 2  # columns of the terminal between two cells
COMFORTABLE = 20  # as narrow as text gets while there are columns to leave out
TIGHT = 10  # as narrow as text gets before names are cut
MIN_NAME = 24  # as narrow as names and ids get
ELLIPSIS = "…"


@dataclass(frozen=True)
class Measure:
    """A column: width of its widest cell or title, and that of the title.

    `whole`: names and ids, which are cut last, in the middle; `spare`: the higher, the earlier it is left
    out, 0: never.
    """

    natural: int
    title: int
    whole: bool = False
    spare: int = 0

    def floor(self, text: int, name: int | None = None) -> int:
        """Return the least width if text may be cut to `text`, and names to `name` (None: not at all)."""
        if self.whole:
            return self.natural if name is None else min(self.natural, name)
        return min(self.natural, max(text, self.title))


def fit(columns: Sequence[Measure], total: int) -> list[int]:
    """Return the width of each column in a table of at most `total`; 0 for a column that is left out.

    Long text is cut first, then spare columns are left out, then text is cut further, at last names. The
    table is wider than `total` if even that is not enough.
    """
    widths: list[int] = []
    for shown, text, name in _attempts(columns):
        floors = [columns[at].floor(text, name) for at in shown]
        budget = total - GAP * (len(shown) - 1)
        reduced = reduce_widths([columns[at].natural for at in shown], floors, budget)
        widths = [0] * len(columns)
        for at, width in zip(shown, reduced, strict=True):
            widths[at] = width
        if sum(reduced) <= budget:
            break
    return widths


def _attempts(columns: Sequence[Measure]) -> Iterator[tuple[list[int], int, int | None]]:
    """Yield the columns to show and the least widths of text and names, the best first."""
    shown = list(range(len(columns)))
    yield shown, COMFORTABLE, None
    spare = sorted((at for at in shown if columns[at].spare), key=lambda at: (-columns[at].spare, -at))
    for left_out in spare:
        shown = [at for at in shown if at != left_out]
        yield shown, COMFORTABLE, None
    yield shown, TIGHT, None
    yield shown, TIGHT, MIN_NAME


def reduce_widths(widths: Sequence[int], floors: Sequence[int], budget: int) -> list[int]:
    """Return the widths with the widest reduced, none below its floor, until the sum is within the budget."""
    reduced = [max(floor, min(width, budget)) for width, floor in zip(widths, floors, strict=True)]
    over = sum(reduced) - budget
    while over > 0:
        flexible = [at for at, width in enumerate(reduced) if width > floors[at]]
        if not flexible:
            break
        reduced[max(flexible, key=lambda at: reduced[at])] -= 1
        over -= 1
    return reduced


def cut_middle(text: str, width: int) -> str:
    """Return a name or id cut in its middle; begin and end identify it, and `matches_cut` finds it again."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + ELLIPSIS + (text[-tail:] if tail else "")


def matches_cut(typed: str, name: str) -> bool:
    """True if `typed` is the name as `cut_middle` may have cut it."""
    begin, mark, end = typed.partition(ELLIPSIS)
    return bool(mark) and name.startswith(begin) and name.endswith(end) and len(name) > len(begin) + len(end)
