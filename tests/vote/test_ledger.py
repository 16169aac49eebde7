"""The ledger of standings in the dataset."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.evidence import Tally
from mao_shared.models.round import VoteDefinition
from mao_vote.evidence import MAX_REMEMBERED_FIELDS, RoundTotals, file_kind
from mao_vote.ledger import BrokenLedger, FieldPast, Ledger, dump_ledger, load_ledger
from mao_vote.records import PastCells
from mao_vote.records.cells.memory import MAX_PAST_VALUES
from mao_vote.settled import Settled
from mao_vote.tree_vote import FileVote
from mao_vote.vdx import Standing

unhurried = settings(deadline=None)  # other programs may keep the machine busy


NAMES = st.text(min_size=1, max_size=8)
STANDINGS = st.integers(1, 99).flatmap(
    lambda rounds: st.builds(Standing, st.floats(0, rounds), st.just(rounds))
)
PAST_CELLS = st.builds(
    lambda agreed, cells: PastCells(agreed, [cell for cell, _ in cells], [place for _, place in cells]),
    st.dictionaries(NAMES, st.integers(0, 99), max_size=3),
    st.lists(st.tuples(st.dictionaries(NAMES, NAMES, min_size=1, max_size=3), NAMES), max_size=3),
)
SETTLED = st.builds(Settled, NAMES, NAMES, st.dictionaries(NAMES, NAMES, max_size=3))
PASTS = st.builds(FieldPast, st.datetimes(timezones=st.just(UTC)), st.lists(PAST_CELLS, max_size=2))
LEDGERS = st.builds(
    Ledger,
    st.dictionaries(NAMES, st.dictionaries(NAMES, STANDINGS, max_size=3), max_size=3),
    st.dictionaries(st.tuples(NAMES, NAMES), PASTS, max_size=3),
    st.dictionaries(NAMES, SETTLED, max_size=3),
    NAMES,
)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


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


def test_ledger_of_version_1_is_read_and_written() -> None:
    content = b'{"version": 1, "files": {\n"x": {"a": {"successes": 1.5, "rounds": 2}}\n}}\n'
    assert dump_ledger(load_ledger(content), 1) == content
    assert dump_ledger(load_ledger(content)).startswith(b'{"version": 2, ')


def test_ledger_remembers_fields_of_files_that_differ_in_digits_together() -> None:
    cells = PastCells({"a": 3, "b": 2}, [{"a": "x", "b": "y"}], ["p"])
    ledger = Ledger().remembering({("#-#-#/m.csv", "v"): [cells]}, NOON)
    assert ledger.memory("2026-01-06/m.csv") == {"v": [cells]}
    assert ledger.memory("2026-01-06/n.csv") == {}
    next_day = PastCells({"a": 1, "b": 1}, [{"a": "x", "b": "y"}], ["q"])
    later = ledger.remembering({("#-#-#/m.csv", "v"): [next_day]}, NOON + timedelta(days=1))
    assert later.memory("m.csv") == {}
    assert later.memory("2026-01-07/m.csv") == {"v": [cells, next_day]}


def test_ledger_cells_that_nodes_repeat_are_remembered_once() -> None:
    two = PastCells({"a": 4, "b": 2}, [{"a": "x", "b": "y"}, {"a": "u", "b": "v"}], ["p", "q"])
    grown = PastCells({"a": 5, "b": 3}, [{"a": "x", "b": "y"}, {"a": "u", "b": "w"}], ["p", "q"])
    ledger = Ledger().remembering({("m.csv", "v"): [two]}, NOON).remembering({("m.csv", "v"): [grown]}, NOON)
    assert ledger.memory("m.csv") == {
        "v": [PastCells({"a": 2, "b": 1}, [{"a": "u", "b": "v"}], ["q"]), grown]
    }


def test_ledger_forgets_the_oldest_cells_and_fields() -> None:
    ledger = Ledger()
    for day in range(5):
        cells = PastCells(
            {}, [dict.fromkeys("abcde", "x")] * 100, [f"{day} {number}" for number in range(100)]
        )
        ledger = ledger.remembering({("m.csv", "v"): [cells]}, NOON + timedelta(days=day))
    assert len(ledger.memory("m.csv")["v"]) == MAX_PAST_VALUES // cells.size == 2
    many = {("m.csv", f"f{number:03}"): [cells] for number in range(MAX_REMEMBERED_FIELDS)}
    ledger = ledger.remembering(many, NOON + timedelta(days=9))
    assert len(ledger.fields) == MAX_REMEMBERED_FIELDS
    assert "v" not in ledger.memory("m.csv")


def test_ledger_round_of_many_files_holds_only_what_is_remembered() -> None:
    """Each kind of file has a sample, and a dataset may have very many kinds."""
    tick = NOON + timedelta(days=1)
    before = Ledger().remembering({(f"k{number}.csv", "v"): [] for number in range(150)}, NOON)
    totals = RoundTotals({})
    expected: dict[tuple[str, str], list[PastCells]] = {}
    for number in range(5 * MAX_REMEMBERED_FIELDS):
        letters = "".join(chr(97 + int(digit)) for digit in f"{number * 7 % 400:03}")
        cells = PastCells({}, [dict.fromkeys("abc", str(number))] * 150, [f"{number}"] * 150)
        path = f"{number}/{letters}.csv"
        totals.add(FileVote(path, None, "records", "", {}, samples={"v": cells}))
        expected.setdefault((file_kind(path), "v"), []).append(cells)
        assert len(totals.samples) <= 2 * MAX_REMEMBERED_FIELDS
    assert len(expected) == 400 > MAX_REMEMBERED_FIELDS
    assert before.remembering(totals.samples, tick) == before.remembering(expected, tick)


def test_ledger_path_that_is_no_text_is_written_and_read() -> None:
    path = b"caf\xe9.csv".decode(errors="surrogateescape")
    cells = PastCells({"a": 1}, [{"a": "x"}], ["p"])
    ledger = Ledger().updated(path, {"a": Tally(2, 1)}).remembering({(file_kind(path), "v"): [cells]}, NOON)
    again = load_ledger(dump_ledger(ledger))
    assert again.standings(path, "a") == {"a": Standing(0.5, 1)}
    assert again.memory(path) == {"v": [cells]}


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


PAST = {"tick": "2026-01-05T12:00:00Z", "rounds": []}


def past_of(*rounds: list[dict[str, str]]) -> bytes:
    """Return a ledger with one field, whose past has these cells."""
    past = {
        **PAST,
        "rounds": [{"agreed": {}, "cells": cells, "places": ["p"] * len(cells)} for cells in rounds],
    }
    return json.dumps({"fields": {"f": {"v": past}}}).encode()


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"{", "the whole"),
        (b"\xff", "the whole"),
        (b'{"version": 3}', "version"),
        (b'{"files": {"f": {"a": {"successes": 3, "rounds": 2}}}}', "files / f / a"),
        (b'{"files": {"f": {"a": {"successes": 1e999, "rounds": 2}}}}', "files / f / a / successes"),
        (b'{"files": {"f": {"a": {"successes": 1, "rounds": 0}}}}', "files / f / a / rounds"),
        (b'{"files": {"f": {"a": {"successes": "1", "rounds": 1}}}}', "files / f / a / successes"),
        (b'{"fields": {"f": {"v": {"rounds": []}}}}', "fields / f / v / tick"),
        (
            b'{"fields": {"f": {"v": {"tick": "2026-01-05T12:00:00Z", '
            b'"rounds": [{"agreed": {"a": -1}, "cells": []}]}}}}',
            "fields / f / v / rounds / 0 / agreed / a",
        ),
        (
            b'{"files": {"f": {"a": {"successes": 1, "rounds": 1%s}}}}' % (b"0" * 400),
            "files / f / a / rounds",
        ),
        (b'{"fields": {"f": {"v": {"tick": "2026-01-05T12:00:00", "rounds": []}}}}', "fields / f / v / tick"),
        (b'{"settled": {"f": {"round": "r", "result": ""}}}', "settled / f / contents"),
        (past_of([{"a": "x", "b": "y"}] * 1001), "fields / f / v"),
        (past_of([{"a": "x", "b": "y"}] * 400, [{"a": "x"}] * 400), "fields / f / v"),
        (past_of([{"a": "x" * 101}]), "fields / f / v"),
        (past_of([{}] * 10), "fields / f / v"),
        (json.dumps({"fields": {"f": {str(number): PAST for number in range(201)}}}).encode(), "the whole"),
    ],
)
def test_ledger_what_is_no_ledger_names_the_place(content: bytes, where: str) -> None:
    with pytest.raises(BrokenLedger, match=f"at {where}: "):
        load_ledger(content)
