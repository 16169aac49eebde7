"""Widths of columns on a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maoctl.layout import GAP, MIN_NAME, TIGHT, Measure, cut_middle, fit, matches_cut

measures = st.builds(
    Measure,
    natural=st.integers(1, 200),
    title=st.just(1),
    whole=st.booleans(),
    spare=st.integers(0, 3),
)


@given(st.lists(measures, min_size=1, max_size=9), st.integers(20, 200))
def test_fit_is_within_the_terminal_or_as_narrow_as_it_gets(columns: list[Measure], total: int) -> None:
    widths = fit(columns, total)

    shown = [at for at, width in enumerate(widths) if width]
    used = sum(widths) + GAP * (len(shown) - 1)
    assert all(width <= max(column.natural, 1) for width, column in zip(widths, columns, strict=True))
    if used > total:  # nothing is left to give
        assert not any(columns[at].spare for at in shown)
        assert all(widths[at] == columns[at].floor(TIGHT, MIN_NAME) for at in shown)


@given(st.lists(measures, min_size=1, max_size=9))
def test_fit_leaves_a_table_that_fits_as_it_is(columns: list[Measure]) -> None:
    total = sum(column.natural for column in columns) + GAP * (len(columns) - 1)
    assert fit(columns, total) == [column.natural for column in columns]


def test_fit_cuts_text_before_it_leaves_out_columns_and_names_last() -> None:
    name, spare, text = Measure(40, 4, whole=True), Measure(10, 5, spare=1), Measure(60, 6)

    assert fit([name, spare, text], 80) == [40, 10, 26]
    assert fit([name, spare, text], 70) == [40, 0, 28]
    assert fit([name, spare, text], 52) == [40, 0, 10]
    assert fit([name, spare, text], 40) == [24, 0, 14]


@given(st.text("abc-0123…", min_size=1, max_size=99), st.integers(1, 99))
def test_cut_middle_is_found_again(name: str, width: int) -> None:
    cut = cut_middle(name, width)

    assert len(cut) == min(len(name), width)
    if "…" not in name and cut != name:
        assert matches_cut(cut, name)
        assert not matches_cut(cut, f"x{name}") or cut.startswith(("x", "…"))
