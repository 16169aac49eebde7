"""The vote of `ballots.py` on plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .ballots import decide

if TYPE_CHECKING:
    from polars import Series


def vote_numbers(
    rounds: Sequence[Sequence[float | None]], error: float
) -> list[tuple[float | None, str, bool]]:
    """Of each round the chosen value, why it is that, and whether it is contested. None: a voter is absent.

    A round in which nobody votes is undecided. Raises ValueError where a number is not finite.
    """
    import polars

    cells = [(cell, value) for cell, values in enumerate(rounds) for value in values if value is not None]
    schema = {"cell": polars.UInt32, "number": polars.Float64}
    ballots = polars.DataFrame(cells, schema=schema, orient="row")
    if not ballots["number"].is_finite().all():
        raise ValueError("only finite numbers can be voted")
    ballots = ballots.with_columns(
        number=polars.col("number") + 0.0,
        word=polars.lit(None, polars.String),
        text=polars.col("number").cast(polars.String),
        votes=polars.lit(1, polars.Int64),
        weight=polars.lit(1, polars.Int64),
    )
    decided = decide(
        ballots, error, lambda places: polars.repeat(None, places.len(), dtype=polars.String, eager=True)
    )
    found: list[tuple[float | None, str, bool]] = [(None, "undecided", False)] * len(rounds)
    contested = 2 * polars.col("behind") <= polars.col("total")
    for cell, value, why, disputed in decided.select("cell", "number", "why", contested).iter_rows():
        found[cell] = value, why, disputed
    return found


def _nothing(cells: Series) -> Series:
    import polars

    return polars.repeat(None, cells.len(), dtype=polars.String, eager=True)
