"""How the vote is measured against known truths; the figures are those of `python -m bench truth`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bench.__main__ import arguments
from bench.report import Measure, as_line, as_table, past_limit
from bench.truth.compare import below_plurality, compare_one
from bench.truth.families import read_pairs, shared_errors
from bench.truth.flight import is_right, load_days, with_day
from bench.truth.lookalikes import DIFFERENT, EQUAL, Spell, decide_kind, lists_difference, lists_none
from bench.truth.made_up import leave_empty, mixed_truth, observe_round, rng_of, within
from bench.truth.peers import interpreter, score_methods
from bench.truth.sets import ABSENT, Observed, Score, TruthSet, decide, read_csv, score, write_rows
from bench.truth.simple import clear_plurality, median, plurality, plurality_of_rows
from bench.truth.structure import rows

from mao_vote import FileDecision
from tests.support.evidence import shared_data


def table(**columns: str) -> Observed:
    """Return a round of one record with the field `v`, by node; `truth` is no node."""
    truth = {("r", "v"): columns.pop("truth")}
    versions = {node: write_rows(["name", "v"], [["r", value]]) for node, value in columns.items()}
    return Observed(versions, truth, lambda content: read_csv(content, "name"))


@pytest.mark.parametrize(
    ("truth", "found", "share"),
    [
        ("4", {("r", "v"): "4"}, 1.0),
        ("4", {("r", "v"): "5"}, 0.0),
        ("4", {}, 0.0),
        (ABSENT, {}, 1.0),
        (ABSENT, {("r", "v"): "4"}, 0.0),
    ],
)
def test_score_lacking_cell_is_wrong_unless_none_is_true(
    truth: str, found: dict[tuple[str, str], str], share: float
) -> None:
    assert score(TruthSet("set", [table(a="4", truth=truth)]), [found]).share == share


def test_score_cell_that_nobody_observed_does_not_count() -> None:
    assert score(TruthSet("set", [table(a="", truth="4")]), [{}]).names == []


def test_score_margin_counts_cells_in_which_two_methods_differ() -> None:
    ours, theirs = Score("vvvv", [True, True, False, False]), Score("vvvv", [True, False, False, False])
    assert ours.margin(ours) == 0
    assert ours.margin(theirs) == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("name", "found", "wanted", "right"),
    [
        ("actual_arrival", "10:10", "10:00", True),
        ("actual_arrival", "10:11", "10:00", False),
        ("actual_arrival", "23:56", "00:02", True),
        ("actual_arrival", "soon", "00:02", False),
        ("arrival_gate", "B07", "B07", True),
        ("arrival_gate", "07 B", "7B", True),
        ("arrival_gate", "B7", "B07", False),
    ],
)
def test_is_right_flight_times_within_ten_minutes_gates_without_leading_zeros(
    name: str, found: str, wanted: str, right: bool
) -> None:
    assert is_right(name, found, wanted) is right


def test_simple_rules_of_a_cell() -> None:
    claims = {("r", "v"): {"a": "1", "b": "1", "c": "9", "d": "10", "e": "11"}}
    assert plurality(claims) == clear_plurality(claims) == {("r", "v"): "1"}
    assert plurality({("r", "v"): {"a": "y", "b": "x"}}) == {("r", "v"): "x"}
    assert clear_plurality({("r", "v"): {"a": "y", "b": "x"}}) == {}
    assert median(claims, ()) == {("r", "v"): "9"}
    assert median(claims, ("v",)) == {("r", "v"): "1"}
    assert median({("r", "v"): {"a": "09:50", "b": "10:10"}}, ()) == {("r", "v"): "10:00"}
    assert median({("r", "v"): {"a": "x", "b": "10:10"}}, ()) == {("r", "v"): "10:10"}


def test_plurality_of_rows_keeps_what_half_of_the_nodes_have() -> None:
    versions = {
        node: write_rows(["name", "v"], [[name, "1"] for name in names])
        for node, names in {"a": "xyz", "b": "xy", "c": "x", "d": "x"}.items()
    }
    part = Observed(versions, {}, lambda content: read_csv(content, "name"))
    assert plurality_of_rows(part).keys() == {("x", "v"), ("y", "v")}


def test_below_plurality_says_by_how_much_and_why() -> None:
    observed, part = TruthSet("set", []), table(a="4", truth="4")
    ours, other = Score("v" * 100, [True] * 98 + [False] * 2), Score("v" * 100, [True] * 100)
    assert below_plurality(observed, ours, {"plurality": other}) == ["below plurality by 2 points: by chance"]
    far = Score("v" * 100, [True] * 50 + [False] * 50)
    assert "for no known reason" in below_plurality(observed, far, {"plurality": other})[0]
    stated = TruthSet("set", [part], below="that is meant")
    assert below_plurality(stated, far, {"plurality": other}) == [
        "below plurality by 50 points: that is meant"
    ]
    assert below_plurality(observed, other, {"plurality": ours}) == []


def test_rows_of_sets_without_a_reason_have_plurality_as_floor() -> None:
    assert all(("plurality" in found.floors) != bool(found.below) for found in rows(1))


def test_within_is_relative_and_absolute() -> None:
    assert within(0.05)("v", "104", "100")
    assert not within(0.05)("v", "106", "100")
    assert within(0, 0.5)("v", "0.4", "0")
    assert not within(0.05)("v", "none", "100")


def test_decide_in_sequence_votes_on_every_round_in_one_repository(tmp_path: Path) -> None:
    rounds = [table(a=value, b=value, c="0", truth=value) for value in ("1", "2", "3")]
    found = decide(TruthSet("set", rounds, in_sequence=True, first=1), tmp_path)
    assert found == [{("r", "v"): "2"}, {("r", "v"): "3"}]
    assert found == decide(TruthSet("set", rounds, first=1), tmp_path)


def test_compare_one_has_a_limit_at_plurality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = rng_of("test")
    part = observe_round(mixed_truth(30, rng), leave_empty(rng, 0.1, lambda _, __, value: value))
    observed = TruthSet("set", [part], goal=0.5)
    assert past_limit([compare_one(observed, tmp_path, {})]) == []
    monkeypatch.setattr("bench.truth.compare.decide", lambda *_, **__: [{}])
    assert past_limit([compare_one(observed, tmp_path, {})])


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.96, "goal met"), (0.9, "within limit"), (0.8, "PAST LIMIT")]
)
def test_measure_lower_bound(ours: float, verdict: str) -> None:
    assert (
        Measure("share", ours, "", judged="ours", goal=0.95, limit=0.85, is_lower_bound=True).verdict
        == verdict
    )


def test_as_table_methods_beside_have_columns_of_their_own() -> None:
    measures = [
        Measure("one", 0.5, "", beside={"median": 0.25}),
        Measure("two", 0.5, "", beside={"plurality": 0.75}),
        Measure("alone", 3, "s"),
    ]
    alone, compared = as_table({"cpu": "fast"}, measures).split("\n\n")[:2]
    assert "alone" in alone
    assert [cell.strip() for cell in compared.splitlines()[0].split("|")[2:5]] == [
        "MAO",
        "median",
        "plurality",
    ]
    assert [cell.strip() for cell in compared.splitlines()[3].split("|")[2:5]] == ["0.5", "", "0.75"]
    assert as_line(measures[0]) == "one: 0.5; median 0.25"


def test_arguments_name_of_a_group_stands_for_all_its_parts() -> None:
    names = arguments(["truth"]).names
    assert "truth/flight" in names
    assert all(name.startswith("truth/") for name in names)
    assert arguments(["truth/flight", "vote"]).names == ["vote", "truth/flight"]


def test_with_day_keeps_the_claims(tmp_path: Path) -> None:
    shared_data()
    [day, _] = load_days(quick=True) or []
    renamed = with_day(day, 3)
    assert len(renamed.claims) == len(day.claims)
    assert {cell[0].partition(" ")[0] for cell in renamed.claims} == {"3"}


def test_flight_pairs_of_two_days_are_in_the_list() -> None:
    shared_data()
    days = load_days(quick=True) or []
    pairs = {(row["one"], row["other"]) for row in shared_errors(days) if row["coverage"] == "same"}
    assert ("flightview", "panynj") in pairs
    assert len(pairs & read_pairs().keys()) >= 10


def test_score_methods_that_cannot_be_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr("bench.truth.peers.python", fail)
    monkeypatch.setattr("bench.truth.peers.interpreter", interpreter.__wrapped__)
    assert score_methods([TruthSet("set", [table(a="4", truth="4")])]) == [{}]
    assert "MAO alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kinds", "is_right"), [(DIFFERENT, lists_difference), (EQUAL, lists_none)], ids=["different", "equal"]
)
def test_decide_kind_of_texts_that_look_like_close_numbers(
    kinds: dict[str, tuple[str, str, Spell]], is_right: Callable[[FileDecision], bool]
) -> None:
    assert [
        kind for kind, texts in kinds.items() if not is_right(decide_kind(kind, *texts, rules=None))
    ] == []
