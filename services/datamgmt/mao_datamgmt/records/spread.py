"""Numbers without a majority: who agrees within a tolerance, and what the middle is.

`candidates` is a long table, a row a different number of a cell: cell, number, votes, weight, incumbent
(whether the ground truth says so), total (the votes on the cell), and what else is to be carried along.

    tolerance   more than half of the votes lie so close that each agrees with each. Of the closest such group
                what most in it say; tied: the incumbent, else what is nearest to the group's median
    plurality   a number that most say, at least two; tied: incumbent or weight
    median      the lower median, or with seven votes and more the middle as `_middle` has it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Expr

MANY = 7  # votes from which the ends of the spread say more of the middle than the middle value does
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
_SIGMAS = 3.0


def agrees(one: Expr, other: Expr, error: float) -> Expr:
    """Whether two numbers differ by at most the part `error` of the larger one; whatever their signs."""
    import polars

    return (one - other).abs() <= error * polars.max_horizontal(one.abs(), other.abs())


def decide_numbers(candidates: DataFrame, error: float) -> DataFrame:
    """The chosen row of each cell, with `why` and `behind` (the votes that stand behind it)."""
    import polars

    tight = _groups(candidates, error)
    grouped = candidates.join(tight, on="cell").filter(polars.col("number").is_between("low", "high"))
    rest = candidates.join(tight, on="cell", how="anti")
    by_votes = _plurality(rest)
    rest = rest.join(by_votes, on="cell", how="anti")
    columns = [*candidates.columns, "why", "behind"]
    return polars.concat(part.select(columns) for part in (_of_group(grouped), by_votes, _middle(rest)))


def _groups(candidates: DataFrame, error: float) -> DataFrame:
    """cell, low, high, size: the closest group of more than half of the votes, where there is one.

    A group is named by its lowest number and holds all above that agree with it: those agree with each other
    as well. Two groups of more than half overlap, so they have one sign, and the last tie is settled by size.
    """
    import polars

    low, high = polars.col("number"), polars.col("high")
    others = candidates.select("cell", "total", high="number", behind="votes")
    pairs = candidates.select("cell", "number").join(others, on="cell").filter(high >= low)
    groups = (
        pairs.filter(agrees(low, high, error))
        .group_by("cell", "number")
        .agg(polars.col("behind").sum().alias("size"), high.max(), polars.col("total").first())
        .filter(2 * polars.col("size") > polars.col("total"))
    )
    return (
        groups.sort("cell", -polars.col("size").cast(polars.Int64), high - low, low.abs())
        .unique("cell", keep="first", maintain_order=True)
        .select("cell", "high", "size", low="number")
    )


def _median(order: Expr) -> Expr:
    """The lower median of a cell's votes, when its rows are sorted."""
    import polars

    votes = polars.col("votes")
    return order.filter(2 * votes.cum_sum() >= votes.sum()).first()


def _of_group(members: DataFrame) -> DataFrame:
    import polars

    size, number = polars.col("number").abs(), polars.col("number")
    members = members.sort("cell", size).with_columns(median=_median(number).over("cell"))
    best = members.filter(polars.col("votes") == polars.col("votes").max().over("cell"))
    return (
        best.sort("cell", ~polars.col("incumbent"), (number - polars.col("median")).abs(), size)
        .unique("cell", keep="first", maintain_order=True)
        .with_columns(why=polars.lit("tolerance"), behind=polars.col("size"))
    )


def _plurality(candidates: DataFrame) -> DataFrame:
    import polars

    votes, weight = polars.col("votes"), polars.col("weight")
    leaders = candidates.filter((votes == votes.max().over("cell")) & (votes > 1)).with_columns(
        tied=polars.len().over("cell"),
        heaviest=(weight == weight.max().over("cell"))
        & ((weight == weight.max().over("cell")).sum().over("cell") == 1),
        kept=polars.col("incumbent").any().over("cell"),
    )
    return leaders.filter(
        (polars.col("tied") == 1) | polars.col("incumbent") | (~polars.col("kept") & polars.col("heaviest"))
    ).with_columns(
        why=polars.when(polars.col("tied") == 1)
        .then(polars.lit("plurality"))
        .when("incumbent")
        .then(polars.lit("incumbent"))
        .otherwise(polars.lit("weight")),
        behind=votes,
    )


def _middle(candidates: DataFrame) -> DataFrame:
    import polars

    ordered = candidates.sort("cell", "number")
    median = _median(polars.col("number")).over("cell")
    return ordered.filter(polars.col("number") == median).with_columns(
        why=polars.lit("median"), behind=polars.col("votes")
    )
