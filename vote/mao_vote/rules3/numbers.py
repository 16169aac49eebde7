"""Parses numbers as tables spell them, and votes on numbers without a majority.

A number may have a decimal point or comma, and thousands separators; anything else is text:

    2.50  1e3  -0.5           as programs write them
    2,50  1.234,5  1 234,5    the last mark is a comma: it is the decimal comma
    1,234.5  1,234,567        a comma before a point, or a repeated one, separates thousands
    1.234.567  1'234.5
    1,234                     read as 1.234: it is ambiguous, and several such numbers keep their order

`candidates` of a vote is a long table with one row per distinct number of a cell: cell, number, votes,
weight, incumbent (it is the value in the previous ground truth), total (votes on the cell), and further
columns. The rules are tried in this order:

    tolerance   more than half of the votes form a group in which each agrees with each. The most frequent
                number of the closest such group, and of those that agree with its ends; if tied, the
                incumbent, or else the one nearest to the middle
    plurality   the most frequent number, with at least two votes; if tied, by incumbent or weight
    median      the lower median; with seven votes or more, the number nearest to the middle of their spread
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

_MAX_DIGITS = 15  # longer integers would be rounded, so they are compared as texts
_GROUP_MARKS = " '\u00a0\u2009\u202f\u2019"
_POWER = "(?:[eE][+-]?[0-9]+)?"
_COMMA = rf"^[+-]?(?:[0-9]+|[0-9]{{1,3}}(?:[.{_GROUP_MARKS}][0-9]{{3}})+),[0-9]+{_POWER}$"
_GROUPS = (
    rf"^[+-]?[0-9]{{1,3}}(?:(?:,[0-9]{{3}}){{2,}}|(?:\.[0-9]{{3}}){{2,}}|(?:[{_GROUP_MARKS}][0-9]{{3}})+)$"
    rf"|^[+-]?[0-9]{{1,3}}(?:[,{_GROUP_MARKS}][0-9]{{3}})+\.[0-9]+{_POWER}$"
)
_MAYBE_NUMBER = rf"^[+-]?[0-9]+[,.{_GROUP_MARKS}]"
MIN_SPREAD_VOTES = 7  # with more, the ends of the spread estimate the middle better than the median
_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
_SIGMAS = 5.0  # numbers further from the centre are outliers and not part of the spread


def numbers(texts: Series) -> Series:
    """Parse texts as finite numbers; null for other texts and for integers too long for a float."""
    import polars

    value = texts.cast(polars.Float64, strict=False)
    spelling = texts
    places = (value.is_null() & texts.is_not_null()).arg_true()
    places = places.filter(texts.gather(places).str.contains(_MAYBE_NUMBER))
    if places.len():
        plain = texts.gather(places).to_frame("text").select(_plain(polars.col("text")))["text"]
        spelling = texts.scatter(places, plain)
        value = value.scatter(places, plain.cast(polars.Float64, strict=False))
    longer = (spelling.str.len_bytes() > _MAX_DIGITS).fill_null(value=False).arg_true()
    longer = longer.filter(spelling.gather(longer).str.contains(r"^[+-]?\d{16,}$"))
    found = value.scatter(longer, None) + 0.0  # turns -0.0 into 0.0
    return found.set(~found.is_finite().fill_null(value=False), None)


def _plain(text: Expr) -> Expr:
    import polars

    comma = text.str.replace_all(rf"[.{_GROUP_MARKS}]", "").str.replace(",", ".", literal=True)
    last_point = text.str.replace_all(rf"[,{_GROUP_MARKS}]", "")
    no_mark = text.str.replace_all(rf"[,.{_GROUP_MARKS}]", "")
    points = text.str.count_matches(".", literal=True)
    return (
        polars.when(text.str.contains(_COMMA))
        .then(comma)
        .when(text.str.contains(_GROUPS))
        .then(polars.when(points == 1).then(last_point).otherwise(no_mark))
        .otherwise(None)
        .alias("text")
    )


def agrees(one: Expr, other: Expr, error: float) -> Expr:
    """True where two numbers differ by at most the fraction `error` of the larger absolute value."""
    import polars

    return (one - other).abs() <= error * polars.max_horizontal(one.abs(), other.abs())


def decide_numeric_cells(candidates: DataFrame, error: float) -> DataFrame:
    """Return the chosen row of each cell, with `why` and `behind` (the number of votes for it)."""
    import polars

    number = polars.col("number")
    columns = [*candidates.columns, "why", "behind"]
    groups = _closest_groups(candidates, error)
    candidates = _with_middle(candidates)
    near = agrees(number, polars.col("low"), error) | agrees(number, polars.col("high"), error)
    within = number.is_between("low", "high")
    grouped = candidates.join(groups, on="cell").filter(within | near)
    rest = candidates.join(groups, on="cell", how="anti")
    by_votes = _plurality(rest)
    rest = rest.join(by_votes, on="cell", how="anti")
    return polars.concat(
        part.select(columns) for part in (_most_in_group(grouped), by_votes, _nearest_to_middle(rest))
    )


def _closest_groups(candidates: DataFrame, error: float) -> DataFrame:
    """Return cell, low, high and size of each cell's closest group with more than half of the votes, if any.

    A group consists of its lowest number and all higher ones that agree with it, which also agree with each
    other. Two groups of more than half overlap, so they have the same sign, and the last tie is broken by
    absolute value.
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
    """Return the lower median of each cell's votes; rows must be sorted."""
    import polars

    votes = polars.col("votes")
    return order.filter(2 * votes.cum_sum() >= votes.sum()).first().over("cell")


def _with_middle(candidates: DataFrame) -> DataFrame:
    """Add each cell's lower `median` and `middle`, and each number's distance `off` from the centre.

    The centre is half-way between the two medians. The middle is the lower median. With `MIN_SPREAD_VOTES`
    votes or more it is half-way between the lowest and highest number within a few sigma of the centre; sigma
    is estimated from the median absolute deviation.
    """
    import polars

    number, votes, off = polars.col("number"), polars.col("votes"), polars.col("off")
    upto, cast = votes.cum_sum().over("cell"), votes.sum().over("cell")
    ordered = candidates.sort("cell", "number").with_columns(
        median=_median(number),
        upper=number.filter(2 * upto > cast).first().over("cell"),
        upto=upto,
        cast=cast,
    )
    centre = polars.col("median") / 2 + polars.col("upper") / 2
    spread = ordered.with_columns(off=(number - centre).abs()).sort("cell", "off")
    near = polars.when(off <= _SIGMAS * _TO_SIGMA * _median(off)).then(number)
    between = near.min().over("cell") / 2 + near.max().over("cell") / 2
    is_small_vote = polars.col("cast") < MIN_SPREAD_VOTES
    return spread.with_columns(middle=polars.when(is_small_vote).then("median").otherwise(between))


def _most_in_group(members: DataFrame) -> DataFrame:
    """Choose the most frequent number of each group; if tied, the incumbent, or the one nearest the middle.

    With few votes the middle is the group's median, the lower one by absolute value, so that the result does
    not depend on the sign.
    """
    import polars

    number, votes, size = polars.col("number"), polars.col("votes"), polars.col("number").abs()
    is_small_vote = polars.col("cast") < MIN_SPREAD_VOTES
    members = members.sort("cell", size).with_columns(
        middle=polars.when(is_small_vote).then(_median(number)).otherwise("middle")
    )
    best = members.filter(votes == votes.max().over("cell"))
    return (
        best.sort("cell", ~polars.col("incumbent"), (number - polars.col("middle")).abs(), size)
        .unique("cell", keep="first", maintain_order=True)
        .with_columns(why=polars.lit("tolerance"), behind=polars.col("size"))
    )


def _plurality(candidates: DataFrame) -> DataFrame:
    """Choose the most frequent number of each cell if it has two votes, without cells that stay tied."""
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


def _nearest_to_middle(candidates: DataFrame) -> DataFrame:
    """Choose the number nearest to the middle, of those with a third of the votes below and a third above.

    Thirds are rounded down, so that the result lies between honest numbers while fewer than a third of the
    voters lie.
    """
    import polars

    cast, third = polars.col("cast"), (polars.col("cast") - 1) // 3
    inner = (polars.col("upto") > third) & (polars.col("upto") - polars.col("votes") < cast - third)
    away = (polars.col("number") - polars.col("middle")).abs()
    return (
        candidates.filter(inner)
        .sort("cell", away, "off", "number")
        .unique("cell", keep="first", maintain_order=True)
        .with_columns(why=polars.lit("median"), behind=polars.col("votes"))
    )
