"""The ledger of standings in the dataset."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.evidence import Tally
from mao_shared.models.round import VoteDefinition
from mao_vote.ledger import BrokenLedger, Ledger, dump_ledger, load_ledger
from mao_vote.vdx import Standing

unhurried = settings(deadline=None)  # other programs may keep the machine busy


NAMES = st.text(min_size=1, max_size=8)
STANDINGS = st.integers(1, 99).flatmap(
    lambda rounds: st.builds(Standing, st.floats(0, rounds), st.just(rounds))
)
LEDGERS = st.builds(Ledger, st.dictionaries(NAMES, st.dictionaries(NAMES, STANDINGS, max_size=3), max_size=3))


@unhurried
@given(LEDGERS)
def test_ledger_what_is_written_is_read(ledger: Ledger) -> None:
    assert load_ledger(dump_ledger(ledger)) == ledger
    assert dump_ledger(load_ledger(dump_ledger(ledger))) == dump_ledger(ledger)


def test_ledger_bytes_do_not_tell_in_which_order_it_was_built_up() -> None:
    tally = Tally(4, 1)
    one = Ledger().updated("x", {"a": tally, "b": tally}).updated("é", {"a": tally})
    other = Ledger().updated("é", {"a": tally}).updated("x", {"b": tally, "a": tally})
    assert dump_ledger(one) == dump_ledger(other)
    assert dump_ledger(one).count(b"\n") == 4


def test_ledger_round_counts_once_and_by_the_part_of_cells_in_agreement() -> None:
    ledger = Ledger().updated("m.csv", {"a": Tally(1000, 50), "b": Tally(1000, 0), "c": Tally(0, 0)})
    assert ledger.files == {"m.csv": {"a": Standing(0.95, 1), "b": Standing(1.0, 1)}}
    assert ledger.updated("m.csv", {"b": Tally(2, 1)}).standings("m.csv", "abc") == {
        "a": Standing(0.95, 1),
        "b": Standing(1.5, 2),
        "c": Standing(),
    }


def test_ledger_many_files_at_once_are_as_one_after_the_other() -> None:
    tallies = {"x": {"a": Tally(2, 1)}, "y": {"a": Tally(2, 0), "b": Tally(1, 0)}, "z": {"a": Tally(0, 0)}}
    at_once = Ledger().updated_all(tallies)
    assert at_once == Ledger().updated("x", tallies["x"]).updated("y", tallies["y"])
    assert set(at_once.only({"y", "other"}).files) == {"y"}


def test_ledger_weights_of_a_file() -> None:
    ledger = Ledger({"m.csv": {"a": Standing(1, 2), "b": Standing(2, 2)}})
    nodes = ["b", "a", "new"]
    weights = {
        rule: ledger.node_weights("m.csv", nodes, VoteDefinition.model_validate({"history": rule}))
        for rule in ("NONE", "STANDARD", "MODULE_ELIMINATION", "HYBRID")
    }
    assert weights == {
        "NONE": {"a": 1, "b": 1, "new": 1},
        "STANDARD": {"a": 0.25, "b": 1, "new": 0.5625},
        "MODULE_ELIMINATION": {"a": 0, "b": 1, "new": 0.5625},
        "HYBRID": {"a": 0, "b": 1, "new": 1},
    }
    assert ledger.node_weights("other", "ab", VoteDefinition(history="STANDARD", weights={"a": 3})) == {
        "a": 3,
        "b": 1,
    }


def test_ledger_where_all_have_failed_all_count() -> None:
    ledger = Ledger({"f": {"a": Standing(0, 2), "b": Standing(0, 2)}})
    assert ledger.node_weights("f", "ab", VoteDefinition(history="STANDARD")) == {"a": 1, "b": 1}


def test_ledger_no_ledger_is_an_empty_one() -> None:
    assert load_ledger(None) == Ledger() == load_ledger(dump_ledger(Ledger()))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"{", "the whole"),
        (b"\xff", "the whole"),
        (b'{"version": 2}', "version"),
        (b'{"files": {"f": {"a": {"successes": 3, "rounds": 2}}}}', "files / f / a"),
        (b'{"files": {"f": {"a": {"successes": 1e999, "rounds": 2}}}}', "files / f / a / successes"),
        (b'{"files": {"f": {"a": {"successes": 1, "rounds": 0}}}}', "files / f / a / rounds"),
        (b'{"files": {"f": {"a": {"successes": "1", "rounds": 1}}}}', "files / f / a / successes"),
    ],
)
def test_ledger_what_is_no_ledger_names_the_place(content: bytes, where: str) -> None:
    with pytest.raises(BrokenLedger, match=f"at {where}: "):
        load_ledger(content)
