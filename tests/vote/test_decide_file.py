"""Decision of one file from several versions: records, fields, formats, undecided cells."""

from __future__ import annotations

import json

import pytest

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import Cell, FileDecision, decide_file
from mao_vote.records import Key


def vote(
    path: str,
    *contents: str,
    incumbent: str | None = None,
    weights: dict[str, float] | None = None,
    **rule: object,
) -> FileDecision:
    """Vote on the contents as those of nodes a, b, c …"""
    definition = VoteDefinition(files=[FileRule.model_validate(rule)])
    versions = {node: content.encode() for node, content in zip("abcdefghijk", contents, strict=False)}
    before = None if incumbent is None else incumbent.encode()
    return decide_file(path, versions, incumbent=before, definition=definition, weights=weights or {})


def cells(decision: FileDecision) -> dict[tuple[str, ...], tuple[str | None, str]]:
    return {(*cell.key, cell.field): (cell.chosen, cell.why) for cell in decision.cells}


def test_decide_file_majority_of_each_cell_wins_whoever_is_wrong_elsewhere() -> None:
    found = vote("a.csv", "id,x,y\n1,p,q\n2,r,s\n", "id,x,y\n1,p,q\n2,r,BAD\n", "id,x,y\n1,BAD,q\n2,r,s\n")
    assert found.content == b"id,x,y\n1,p,q\n2,r,s\n"
    assert cells(found) == {("1", "x"): ("p", "majority"), ("2", "y"): ("s", "majority")}
    assert [(tally.cells, tally.differing) for tally in found.votes.values()] == [(4, 0), (4, 1), (4, 1)]
    assert found.cells[0] == Cell(("1",), "x", {"a": "p", "b": "p", "c": "BAD"}, "p", "majority", False, 3)


@pytest.mark.parametrize(
    ("texts", "incumbent", "weights", "chosen", "why"),
    [
        ("ppqrs", None, {}, "p", "plurality"),
        ("pqr", "q", {}, "q", "incumbent"),
        ("pqr", "z", {}, "p", "tie"),
        ("ppqqr", "q", {}, "q", "incumbent"),
        ("ppqqr", "r", {}, "p", "tie"),
        ("ppqqr", None, {"c": 1.5}, "q", "weight"),
        ("ppqqr", None, {"e": 9}, "p", "tie"),
    ],
)
def test_decide_file_texts(
    texts: str, incumbent: str | None, weights: dict[str, float], chosen: str, why: str
) -> None:
    before = incumbent and f"id,x\n1,{incumbent}\n"
    for order in (texts, texts[::-1]):
        turned = (
            weights
            if order == texts
            else {"abcde"["abcde".index(node) * -1 - 1]: w for node, w in weights.items()}
        )
        found = vote("a.csv", *(f"id,x\n1,{text}\n" for text in order), incumbent=before, weights=turned)
        assert found.content == f"id,x\n1,{chosen}\n".encode()
        assert cells(found) == {("1", "x"): (chosen, why)}
        assert found.fields[0].tied == (why == "tie")
        assert [note.startswith("tied: 1 cell of x") for note in found.warnings] == [True] * (why == "tie")


@pytest.mark.parametrize(
    ("values", "chosen", "why"),
    [
        (["1", "1.0", "2"], "1", "majority"),
        (["10", "10.1", "50"], "10", "tolerance"),
        (["-10", "-10.1", "-50"], "-10", "tolerance"),
        (["1", "2", "5"], "2", "median"),
        (["1", "2"], "1", "tie"),
        (["7", "7", "1", "3", "30"], "7", "plurality"),
        (["7", "7", "1.00", "1.01", "1.02"], "1.01", "tolerance"),
        (["9007199254740992", "9007199254740993", "9007199254740993"], "9007199254740993", "majority"),
    ],
)
def test_decide_file_numbers(values: list[str], chosen: str, why: str) -> None:
    for order in (values, values[::-1]):
        found = vote("a.csv", *(f"id,x\nk,{value}\n" for value in order))
        assert cells(found) == {("k", "x"): (chosen, why)}
        assert found.content == f"id,x\nk,{chosen}\n".encode()


@pytest.mark.parametrize(
    ("values", "chosen", "why"),
    [
        (["2,50", "2,51", "2,52"], "2,51", "tolerance"),
        (["2,50", "3,51", "7,52"], "3,51", "median"),
        (["2,50", "2,5", "9,1"], "2,5", "majority"),
        (["2,5", "2.50", "9,1"], "2,5", "majority"),
        (["-0,5", "-0,7", "3"], "-0,5", "median"),
        (["1.234,5", "1,234.5", "7"], "1,234.5", "tie"),  # two styles in one column are texts
        (["1.234,5", "1.234,50", "7"], "1.234,5", "majority"),
        (["1 234,5", "2 345,5", "9\u00a0999,5"], "2 345,5", "median"),
        (["1,234,567", "1234567", "5"], "1234567", "majority"),
        (["1'000.5", "2'000.5", "4'000.5"], "2'000.5", "median"),
        (["1,234", "1,500", "1,900"], "1,500", "median"),  # thousands or not, it is the middle one
        (["1,0e3", "2,5e3", "9,0E3"], "2,5e3", "median"),
        (["2,50 kg", "2,51 kg", "2,52 kg"], "2,51 kg", "tolerance"),
        (["2,50 kg", "2,51 V", "2,52 lm"], "2,50 kg", "tie"),
        (["1,2,3", "1,2,4", "1,2,5"], "1,2,3", "tie"),
    ],
)
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_decide_file_numbers_with_decimal_commas(
    values: list[str], chosen: str, why: str, separator: str
) -> None:
    for order in (values, values[::-1]):
        lines = (f"id{separator}x\nk{separator}{value}\n" for value in order)
        found = vote("a.tsv" if separator == "\t" else "a.csv", *lines)
        assert cells(found) == {("k", "x"): (chosen or None, why)}
        assert found.content == f"id{separator}x\nk{separator}{chosen}\n".encode()


def test_decide_file_quoted_numbers_with_decimal_commas_keep_their_quotes() -> None:
    found = vote("a.csv", *(f'id,x\nk,"{value}"\n' for value in ("2,50", "2,51", "2,52")))
    assert found.content == b'id,x\nk,"2,51"\n'
    whole = vote(
        "a.csv", *(f"id;x\nk;{value}\n" for value in ("2,50", "2,5", "7,1")), key=["id"], atomic="record"
    )
    assert whole.content == b"id;x\nk;2,5\n"


def test_decide_file_number_is_spelled_as_most_spell_it_and_that_is_no_difference() -> None:
    found = vote("a.csv", *(f"id,x\nk,{value}\n" for value in ("1", "1.0", "1.0")))
    assert found.content == b"id,x\nk,1.0\n"
    assert not found.cells


def test_decide_file_missing_record_missing_field_and_null_are_three_things() -> None:
    null, absent = '[{"id": 1, "x": null}]', '[{"id": 1}]'
    assert json.loads(vote("a.json", null, null, absent).content or b"") == [{"id": 1, "x": None}]
    assert json.loads(vote("a.json", null, absent, absent).content or b"") == [{"id": 1}]
    assert json.loads(vote("a.json", "[]", absent, "[]").content or b"") == []


def test_decide_file_record_that_only_a_minority_has_is_left_out_and_one_that_most_have_comes_in() -> None:
    found = vote("a.csv", "id,x\n1,p\n3,r\n4,s\n", "id,x\n1,p\n2,q\n3,r\n", "id,x\n1,p\n2,q\n3,r\n5,t\n")
    assert found.content == b"id,x\n1,p\n2,q\n3,r\n"
    assert cells(found) == {("2", ""): ("row", "row"), ("4", ""): (None, "row"), ("5", ""): (None, "row")}


@pytest.mark.parametrize("incumbent", ["id,x\n2,q\n", "id,x\n1,p\n", None])
def test_decide_file_tied_record_is_kept_and_counts_against_nobody(incumbent: str | None) -> None:
    found = vote("a.csv", "id,x\n1,p\n2,q\n", "id,x\n1,p\n", incumbent=incumbent)
    assert (found.content, found.conflicts) == (b"id,x\n1,p\n2,q\n", 0)
    is_new = incumbent is None or "2,q" not in incumbent
    assert found.warnings[-1:] == ["tied: 1 record is kept that as many nodes lack as have"] * is_new
    assert [tally.differing for tally in found.votes.values()] == [0, 0 if is_new else 1]


def test_decide_file_tied_column_is_kept_and_counts_against_nobody() -> None:
    found = vote("a.csv", "id,x,y\n1,p,q\n", "id,x\n1,p\n")
    assert (found.content, found.conflicts) == (b"id,x,y\n1,p,q\n", 0)
    assert [(cell.field, cell.why) for cell in found.cells] == [("y", "tie")]
    assert [tally.differing for tally in found.votes.values()] == [0, 0]


def test_decide_file_tied_record_or_column_is_as_in_ground_truth_where_ties_stay_open() -> None:
    def decide(*contents: str, incumbent: str | None = None) -> FileDecision:
        versions = {node: content.encode() for node, content in zip("ab", contents, strict=True)}
        before = None if incumbent is None else incumbent.encode()
        return decide_file(
            "a.csv", versions, incumbent=before, definition=VoteDefinition(ties="open"), weights={}
        )

    rows = ("id,x\n1,p\n2,q\n", "id,x\n1,p\n")
    assert decide(*rows, incumbent="id,x\n2,q\n").content == b"id,x\n1,p\n2,q\n"
    assert decide(*rows, incumbent="id,x\n1,p\n").content == b"id,x\n1,p\n"
    assert decide(*rows).conflicts == 1
    columns = ("id,x,y\n1,p,q\n", "id,x\n1,p\n")
    assert decide(*columns, incumbent="id,x\n1,p\n").content == b"id,x\n1,p\n"
    assert decide(*columns).conflicts == 1


def test_decide_file_keys_of_several_columns_and_a_node_whose_key_is_not_unique() -> None:
    good = "day,host,x\nmo,h1,1\nmo,h2,2\ntu,h1,3\n"
    found = vote("a.csv", good, good + "tu,h2,4\n", good + "tu,h1,9\n", key=["day", "host"])
    assert found.content == (good + "tu,h2,4\n").encode()
    assert found.key == Key(("day", "host"), "declared")
    assert "not unique" in found.abstained.pop("c")
    assert not found.abstained
    assert list(found.votes) == ["a", "b"]


def test_decide_file_one_nodes_doubled_records_do_not_take_the_inferred_key_from_the_others() -> None:
    good = "id,x\n1,p\n2,p\n"
    found = vote("a.csv", good, good, "id,x\n1,p\n1,p\n")
    assert (found.content, found.key and found.key.columns) == (good.encode(), ("id",))
    assert list(found.abstained) == ["c"]


def test_decide_file_ignored_and_volatile_fields() -> None:
    versions = [f"id,x,at,pid\n1,p,{at},{pid}\n" for at, pid in (("12:00", 7), ("12:02", 8), ("12:01", 9))]
    found = vote("a.csv", *versions, ignore=["pid"], volatile=["at"])
    assert found.content == b"id,x,at\n1,p,12:01\n"
    assert not found.cells
    assert all(tally.differing == 0 for tally in found.votes.values())


def test_decide_file_record_that_is_atomic_comes_whole_from_a_node() -> None:
    versions = ["id,x,y,at\n1,p,q,3\n", "id,x,y,at\n1,p,BAD,2\n", "id,x,y,at\n1,BAD,q,1\n"]
    assert vote("a.csv", *versions, volatile=["at"]).content == b"id,x,y,at\n1,p,q,2\n"
    found = vote("a.csv", *versions, volatile=["at"], atomic="record")
    assert found.content in {
        f"id,x,y,at\n1,{x},{y},2\n".encode() for x, y in ("pq", ("p", "BAD"), ("BAD", "q"))
    }
    assert [(cell.field, cell.why) for cell in found.cells] == [("*", "tie")]
    found = vote("a.csv", *versions, versions[1], volatile=["at"], atomic="record")
    assert found.content == b"id,x,y,at\n1,p,BAD,2\n"
    found = vote("a.csv", *versions, incumbent=versions[2], volatile=["at"], atomic="record")
    assert found.content == b"id,x,y,at\n1,BAD,q,2\n"
    assert [(cell.field, cell.why) for cell in found.cells] == [("*", "incumbent")]


def test_decide_file_atomic_records_of_json_keep_missing_fields_apart_from_null() -> None:
    null, absent = '[{"id": 1, "x": null, "y": 1}]', '[{"id": 1, "y": 1}]'
    assert vote("a.json", null, absent, absent, atomic="record").content == absent.encode()
    assert vote("a.json", null, null, absent, atomic="record").content == null.encode()


def test_decide_file_documents_are_voted_leaf_by_leaf_and_indented_as_before() -> None:
    def text(**changes: object) -> str:
        return json.dumps({"host": "h", "cpu": {"cores": [1, 2], "mhz": 2000}} | changes, indent=4) + "\n"

    found = vote("a.json", text(host="x"), text(cpu={"cores": [1, 3], "mhz": 2000}), text(host="h", new=1))
    assert found.content == text().encode()


def test_decide_file_file_that_most_cannot_read_is_decided_as_a_whole() -> None:
    found = vote("a.json", "{", "{", "[]")
    assert (found.kind, found.content) == ("opaque", b"{")
    assert "as a whole" in found.warnings[0]
    found = vote("a.json", "{", "[1]", "[1]")
    assert (found.kind, found.content, list(found.abstained)) == ("records", b"[1]", ["a"])


@pytest.mark.parametrize(
    "model",
    [
        "id;x\r\n1;p\r\n2;q\r\n3;r\r\n",
        '"id","x"\n"1","p"\n"2","q"\n"3","r"\n',
        "id\tx\n1\tp\n2\tq\n3\tr",
        "\ufeffid,x\n1,p\n2,q\n3,r\n",
    ],
)
def test_decide_file_result_that_no_node_has_is_written_as_the_files_are(model: str) -> None:
    found = vote("a.csv", *(model.replace(letter, "BAD") for letter in "pqr"))
    assert found.content == model.encode()


def test_decide_file_new_result_is_in_the_manner_of_most_and_tied_of_the_ground_truth() -> None:
    comma, crlf = "id,x\n1,{}\n2,{}\n", "id,x\r\n1,{}\r\n2,{}\r\n"
    three = (crlf.format("p", "B"), comma.format("A", "q"), comma.format("p", "C"), crlf.format("D", "q"))
    found = vote("a.csv", *three, comma.format("p", "E"), incumbent=crlf.format("p", "q"))
    assert found.content == comma.format("p", "q").encode()
    found = vote("a.csv", *three, incumbent=crlf.format("p", "q"))
    assert found.content == crlf.format("p", "q").encode()


def test_decide_file_warns_of_a_rule_that_has_no_effect() -> None:
    same, other = "id,x\n1,p\n", "id,x\n1,q\n"
    found = vote("a.csv", same, same, other, rows=4, fields={"y": {"type": "text"}, "x": {}}, volatile=["z"])
    assert found.warnings[:3] == [
        "rows: 4 leaves out every record, since only 3 nodes vote on this file",
        "the definition names the field 'y', which no node has in this file",
        "the definition names the field 'z', which no node has in this file",
    ]
    assert vote("a.csv", same, same, other, rows=3, fields={"x": {}, "*": {}}).warnings == []


@pytest.mark.parametrize("values", [["2026-01-05", "2026-02-01"], ["100.5", "180.5"], ["9:00", "9:40"]])
def test_decide_file_two_nodes_show_no_noise(values: list[str]) -> None:
    one, other = ("id,x\n" + "".join(f"{n},{value}\n" for n in range(20)) for value in values)
    found = vote("a.csv", one, other)
    assert not found.fields[0].measured
    assert [cell.contested for cell in found.cells] == [True] * 20
