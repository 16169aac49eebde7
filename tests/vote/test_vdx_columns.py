"""Record files voted by VDX definitions: use of the voter's outcomes by the rest of the vote."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mao_shared.models.round import VoteDefinition
from mao_vote.election import FileDecision
from mao_vote.file_vote import decide_file
from mao_vote.vdx import Standing

from .repo import data_of, new_repository
from .repo import vote as vote_commits


def csv(*rows: str) -> bytes:
    return ("id,x,name\n" + "".join(f"{row}\n" for row in rows)).encode()


def vote(
    versions: dict[str, bytes],
    standings: dict[str, Standing] | None = None,
    *,
    incumbent: bytes | None = None,
    path: str = "m.csv",
    **fields: Any,
) -> FileDecision:
    definition = VoteDefinition.model_validate(fields)
    return decide_file(
        path, versions, incumbent=incumbent, definition=definition, weights={}, standings=standings
    )


THREE = {"a": csv("1,10,u", "2,1,u"), "b": csv("1,10.4,u", "2,1,u"), "c": csv("1,11.2,v", "2,1,u")}


@pytest.mark.parametrize(
    ("collation", "x", "why"),
    [("MEAN", "10.533333333333333", "computed"), ("MEAN_NEAREST_NEIGHBOR", "10.4", "vdx")],
)
def test_vdx_cells_numbers_are_collated_and_a_computed_one_is_marked(
    collation: str, x: str, why: str
) -> None:
    found = vote(THREE, collation=collation)
    assert found.content == csv(f"1,{x},u", "2,1,u")
    cell = next(c for c in found.cells if c.field == "x")
    assert (cell.key, cell.chosen, cell.why) == (("1",), x, why)
    assert cell.values == {"a": "10", "b": "10.4", "c": "11.2"}


def test_vdx_cells_computed_number_has_a_decimal_comma_where_most_have() -> None:
    versions = {node: f"id;x\n1;{x}\n".encode() for node, x in (("a", "10,5"), ("b", "11,5"), ("c", "12.5"))}
    assert vote(versions, collation="MEAN").content == b"id;x\n1;11,5\n"
    observed = vote(versions, collation="MEAN_NEAREST_NEIGHBOR")
    assert observed.content == versions["b"]


def test_vdx_cells_history_of_the_file_weighs_numbers_and_texts() -> None:
    two = {"a": csv("1,10,u"), "b": csv("1,20,v")}
    known = {"a": Standing(1, 10), "b": Standing(10, 10)}
    for rule in ("STANDARD", "MODULE_ELIMINATION"):
        assert vote(two, known, history=rule).content == two["b"], rule
    assert vote(two, {"a": known["b"], "b": known["a"]}, history="STANDARD").content == two["a"]


def test_vdx_cells_hybrid_weighs_by_agreement_among_those_whom_their_history_leaves() -> None:
    versions = {"a": csv("1,10,u"), "b": csv("1,10.2,u"), "c": csv("1,10.9,u")}
    known = {"a": Standing(1, 10), "b": Standing(9, 10), "c": Standing(10, 10)}
    assert vote(versions, known, history="HYBRID", collation="MEAN_NEAREST_NEIGHBOR").content == versions["b"]


def test_vdx_cells_excluded_values_do_not_count() -> None:
    versions = {node: csv(f"1,{x},u") for node, x in {"a": 10, "b": 11, "c": 12, "d": 13, "e": 999}.items()}
    found = vote(versions, collation="MEAN", exclusion="FURTHEST", exclusion_threshold=1)
    assert found.content == csv("1,11.5,u")


def test_vdx_cells_order_of_the_nodes_does_not_matter() -> None:
    backwards = dict(reversed(THREE.items()))
    asked: list[dict[str, Any]] = [
        {"collation": "MEAN"},
        {"history": "HYBRID"},
        {"collation": "MEAN_NEAREST_NEIGHBOR"},
    ]
    for fields in asked:
        one, other = vote(THREE, **fields), vote(backwards, **fields)
        assert (one.content, list(one.cells), one.votes) == (other.content, list(other.cells), other.votes)


def test_vdx_cells_tie_of_texts_goes_to_the_incumbent() -> None:
    two = {"a": csv("1,1,u"), "b": csv("1,1,v")}
    assert vote(two, history="STANDARD", incumbent=two["b"]).content == two["b"]
    assert vote(two, history="STANDARD", ties="open").conflicts == 1
    assert vote(two, history="STANDARD").content == two["a"]


def test_vdx_cells_number_is_spelt_as_most_spell_it_and_the_file_has_its_own_tolerance() -> None:
    versions = {"a": csv("1,1.00,u"), "b": csv("1,1.0,u"), "c": csv("1,1.0,u"), "d": csv("1,7,u")}
    found = vote(versions, collation="MEAN_NEAREST_NEIGHBOR", history="STANDARD")
    assert found.content == csv("1,1.0,u")
    wide = {"a": csv("1,10,u"), "b": csv("1,14,u"), "c": csv("1,90,u")}
    rule = {"path": "*", "error": 0.5}
    assert vote(wide, collation="MEAN", bootstrapping=True, files=[rule]).content == csv("1,12.0,u")


def test_vdx_cells_json_stays_json_and_a_missing_field_is_no_number() -> None:
    versions = {
        node: json.dumps([{"id": 1, "x": x} if x is not None else {"id": 1}]).encode()
        for node, x in {"a": 1, "b": 2, "c": 3.5, "d": None}.items()
    }
    found = vote(versions, path="m.json", collation="MEAN")
    assert found.content is not None
    assert json.loads(found.content) == [{"id": 1, "x": pytest.approx(6.5 / 3)}]


def test_vdx_cells_nodes_with_the_same_file_count_each() -> None:
    versions = {"a": csv("1,0,u"), "b": csv("1,0,u"), "c": csv("1,0,u"), "d": csv("1,8,u")}
    assert vote(versions, collation="MEAN").content == csv("1,2.0,u")


def test_vdx_cells_what_all_say_is_untouched() -> None:
    same = dict.fromkeys("abc", csv("1,1.10,u"))
    assert vote(same, collation="MEAN", history="HYBRID").content == csv("1,1.10,u")


def test_vdx_cells_what_a_round_taught_weighs_in_the_next(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    asked = VoteDefinition(history="MODULE_ELIMINATION", collation="MEAN")
    bad, good = {"m.csv": csv("1,99,u")}, {"m.csv": csv("1,10,u")}
    first = vote_commits(clone, {"a": bad, "b": good, "c": good}, None, asked, "r1")
    later = {"m.csv": csv("1,12,u")}
    second = vote_commits(clone, {"a": bad, "b": later, "c": later}, first.commit, asked, "r2")
    assert data_of(clone, second) == {"m.csv": "id,x,name\n1,12,u\n"}
    unweighed = vote_commits(clone, {"a": bad, "b": later, "c": later}, None, asked, "r2")
    assert data_of(clone, unweighed) == {"m.csv": "id,x,name\n1,41.0,u\n"}


@pytest.mark.parametrize("rule", ["STANDARD", "MODULE_ELIMINATION", "HYBRID"])
@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_vdx_cells_history_does_not_choose_between_numbers_with_noise(rule: str, noise: float) -> None:
    """Which of several honest numbers with noise is right, the nodes' past does not tell."""
    random = Random(noise)
    truth = [random.uniform(100, 1000) for _ in range(40)]
    versions = {
        node: csv(*(f"{row},{value * (1 + random.gauss(0, noise)):.4f},u" for row, value in enumerate(truth)))
        for node in "abc"
    } | dict.fromkeys("de", csv(*(f"{row},{value * 1.5:.4f},u" for row, value in enumerate(truth))))
    known = {node: Standing(9, 10) for node in "abc"} | {node: Standing(1, 10) for node in "de"}
    files = [{"key": ["id"]}]
    plain = vote(versions, files=files)
    assert plain.fields[0].measured
    assert vote(versions, known, files=files, history=rule).content == plain.content
