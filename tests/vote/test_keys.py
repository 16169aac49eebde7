"""Which columns identify records: inferred or declared, and what is said where that may be wrong."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.records import Key, NotRecords, choose_key, compare, find_record, vote_key
from mao_vote.records.fields.folding import fold_texts

Rows = Sequence[Sequence[object]]
NAMES = ["Alpha/One", "Beta-Two", "Gamma Three", "Éclair", "Straße", "Ὀδυσσεύς", "Иван"]
STARS = [10, 25, 31, 7, 90, 14, 55]


def text(heading: str, rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([heading.split(","), *rows])
    return out.getvalue()


def vote(*contents: str, path: str = "d.csv", incumbent: str | None = None, **rule: Any) -> FileDecision:
    definition = VoteDefinition(files=[FileRule.model_validate(rule)] if rule else [])
    return decide_file(
        path,
        {f"n{number}": content.encode() for number, content in enumerate(contents)},
        incumbent=None if incumbent is None else incumbent.encode(),
        definition=definition,
        weights={},
    )


def key_of(*tables: Rows, heading: str, **rule: Any) -> Key:
    found = vote(*(text(heading, rows) for rows in tables), **rule)
    assert found.key is not None
    return found.key


def repos(spell: Callable[[str], str], names: Sequence[str] = NAMES) -> str:
    return text("repo,stars", [[spell(name), stars] for name, stars in zip(names, STARS, strict=True)])


def table(heading: str, rows: Rows) -> polars.DataFrame:
    columns = heading.split(",")
    return polars.DataFrame(
        [[None if cell is None else str(cell) for cell in row] for row in rows],
        schema=dict.fromkeys(columns, polars.String),
        orient="row",
    )


# other case, Unicode form or space


@pytest.mark.parametrize(
    ("spellings", "fold"),
    [
        ((str.lower, str.upper, str.title), ("case",)),
        ((str.lower, str.lower, str.upper), ("case",)),
        ((str, str.casefold, str.swapcase, str.upper), ("case",)),
        ((str, lambda name: f" {name}", lambda name: f"{name}  "), ("space",)),
        ((str, lambda name: f"\u00a0{name}", lambda name: f"{name}\u200b"), ("space",)),
        ((str, lambda name: f" {name.upper()}", lambda name: f"{name.lower()} "), ("case", "space")),
    ],
)
def test_keys_names_that_differ_only_in_case_or_space_are_recognised_and_said(
    spellings: Sequence[Callable[[str], str]], fold: tuple[str, ...]
) -> None:
    found = vote(*map(repos, spellings))
    assert found.key is not None
    assert (found.key.columns, found.key.fold) == (("repo",), fold)
    assert f"declare fold: [{', '.join(fold)}]" in found.key.unsure
    assert found.key.unsure in found.warnings
    assert not found.conflicts
    records = list(csv.reader(io.StringIO((found.content or b"").decode())))[1:]
    assert [int(stars) for _, stars in records] == STARS
    observed = {spell(name) for spell in spellings for name in NAMES}
    assert {name for name, _ in records} <= observed


@pytest.mark.parametrize("form", ["NFD", "NFKD", "NFC"])
def test_keys_unicode_forms_are_the_same_name_without_a_word(form: Literal["NFC", "NFD", "NFKD"]) -> None:
    names = ["é", "ü", "Å", "क़", "한글", "plain", "ñandú"]
    other = [unicodedata.normalize(form, name) for name in names]
    found = vote(repos(str, names), repos(str, other), repos(str, names))
    assert found.key == Key(("repo",), "inferred")
    assert not found.cells
    assert found.content == repos(str, names).encode()


def test_keys_both_forms_of_a_name_at_most_nodes_are_two_records() -> None:
    rows = [["é.txt", "one"], ["e\u0301.txt", "other"], ["plain", "third"]]
    rules: list[dict[str, Any]] = [{}, {"key": ["path"]}]
    for declared in rules:
        found = vote(*[text("path,v", rows)] * 2, text("path,v", [*rows[:2], ["plain", "4th"]]), **declared)
        assert found.key is not None
        assert found.key.columns == ("path",)
        assert found.content == text("path,v", rows).encode()
    one = vote(text("path,v", rows[:1]), text("path,v", rows[:1]), text("path,v", rows), key=["path"])
    assert list(one.abstained) == ["n2"]


def test_keys_have_the_spelling_of_most_nodes_and_a_tie_that_of_before() -> None:
    lower, upper, title = (repos(spell) for spell in (str.lower, str.upper, str.title))
    assert vote(lower, upper, upper, fold=["case"]).content == upper.encode()
    assert vote(lower, upper, lower).content == lower.encode()
    first = [min(name.lower(), name.upper(), name.title()) for name in NAMES]
    assert (
        vote(lower, upper, title, fold=["case"], key=["repo"]).content
        == repos(dict(zip(NAMES, first, strict=True)).__getitem__).encode()
    )
    tied = vote(lower, upper, title, incumbent=title, fold=["case"], key=["repo"])
    assert tied.content == title.encode()


def test_keys_values_are_voted_and_kept_as_observed_whatever_the_case_of_the_name() -> None:
    rows = [["Foo", "Bar", 1], ["Qux", "BAZ", 2]]
    found = vote(
        text("name,v,n", rows),
        text("name,v,n", [["FOO", "Bar", 1], ["qux", "x", 2]]),
        text("name,v,n", [["foo", "bar", 9], ["Qux", "BAZ", 2]]),
        fold=["case"],
    )
    assert found.key is not None
    assert found.key == Key(("name",), "inferred", fold=("case",))
    assert {(cell.key, cell.field, cell.chosen) for cell in found.cells} == {
        (("FOO",), "v", "Bar"),
        (("FOO",), "n", "1"),
        (("Qux",), "v", "BAZ"),
    }


@pytest.mark.parametrize("path", ["d.json", "d.jsonl"])
def test_keys_fold_json_texts_within_their_quotes(path: str) -> None:
    def lines(*names: str) -> str:
        rows = [f'{{"name": "{name}", "n": {number}}}' for number, name in enumerate(names)]
        return "[" + ",".join(rows) + "]" if path == "d.json" else "\n".join(rows) + "\n"

    found = vote(lines("ab", "c d"), lines(" AB", "c  d"), lines("ab ", "C D"), path=path)
    assert found.key is not None
    assert (found.key.columns, found.key.fold) == (("name",), ("case", "space"))
    assert not found.conflicts
    assert (found.content or b"").count(b'"n"') == 2


def test_keys_declared_without_fold_stay_exact_and_say_what_differs() -> None:
    found = vote(repos(str), repos(str.upper), repos(str.lower), key=["repo"])
    assert found.key is not None
    assert found.key.fold == ()
    assert "declare fold: [case]" in found.key.unsure


def test_keys_case_that_tells_records_apart_is_never_folded() -> None:
    rows = [["a", 1], ["A", 2], ["b", 3]]
    upper = [["A", 2], ["B", 3], ["C", 4]]
    key = key_of(rows, rows, [*rows, ["B", 5]], upper, heading="id,v")
    assert key == Key(("id",), "inferred")


@pytest.mark.parametrize("atomic", ["field", "record"])
def test_keys_fold_accents_only_where_declared(atomic: str) -> None:
    plain, marked = ["Lodz", "Muenchen", "Aarhus"], ["Łódź", "Muenchen", "Åarhus"]
    rows = [[[name, 1] for name in names] for names in (["Loda", *plain[1:]], ["Łodá", *marked[1:]])]
    found = vote(
        *(text("city,v", part) for part in [rows[0], rows[0], rows[1]]), fold=["accents"], atomic=atomic
    )
    assert found.key is not None
    assert found.key.fold == ("accents",)
    assert (found.content or b"").decode().splitlines()[2:] == ["Muenchen,1", "Aarhus,1"]


# numbers, measurements, times


@pytest.mark.parametrize(
    ("heading", "rows", "key"),
    [
        ("stars,repo", [[1, "a"], [2, "b"], [3, "c"]], ("repo",)),
        ("size,title,id", [[1, "a", 7], [2, "b", 8], [3, "c", 9]], ("id",)),
        ("n,repo_id", [[1, 4], [2, 5], [3, 6]], ("repo_id",)),
        ("n,repoId", [[1, 4], [2, 5], [3, 6]], ("repoId",)),
        ("n,SKU", [[1, "x4"], [2, "x5"], [3, "x6"]], ("SKU",)),
        ("n,code,slug", [[1, "08001", "p"], [2, "08002", "q"], [3, "08003", "r"]], ("slug",)),
        ("n,zip", [[1, "08001"], [2, "08002"], [3, "08003"]], ("zip",)),  # a text, though of digits
        ("w,date", [[1.5, "2026-01-01"], [2.5, "2026-01-02"], [3.5, "2026-01-03"]], ("date",)),
        ("v,timestamp", [[1, 1767225600], [2, 1767225660], [3, 1767225720]], ("timestamp",)),
        ("v,year", [[1.0, 2024], [2.5, 2025], [3.0, 2026]], ("year",)),
        ("d,h,v", [["mo", "x", 1.5], ["mo", "y", 2.5], ["tu", "x", 1.5]], ("d", "h")),
        ("v,site,day", [[1, "x", 1], [1, "y", 1], [2, "x", 2]], ("site", "day")),
        (
            "date,site,metric,v",
            [[day, site, metric, 0.5] for day in (1, 2) for site in "ab" for metric in "xy"],
            ("date", "site", "metric"),
        ),
    ],
)
def test_keys_text_before_numbers_typical_names_first(heading: str, rows: Rows, key: tuple[str, ...]) -> None:
    assert key_of(rows, rows[::-1], rows, heading=heading).columns == key
    found = key_of(rows, rows, rows, heading=heading)
    assert (found.columns, found.source) == (key, "inferred")
    assert ("unique in these columns by chance" in found.unsure) == (len(key) == 2)  # of these, a few records


@pytest.mark.parametrize(
    "values",
    [
        ["1.5", "2.5", "3.25"],
        ["1,5", "2,5", "3,25"],
        ["1e-3", "2e-3", "3e-3"],
        ["12 %", "15 %", "19 %"],
        ["1.5 kg", "2.5 kg", "3 kg"],
        ["1", "2", "3.5"],
        ["-0.5", "nan", "0.25"],
        ["1,234.5", "2,345.5", "9,999"],
    ],
)
@pytest.mark.parametrize("name", ["v", "id"])
def test_keys_measurements_are_none_though_unique_and_shared(values: Sequence[str], name: str) -> None:
    rows = [[value, "same"] for value in values]
    key = key_of(rows, rows, [*rows[:2], [values[2], "other"]], heading=f"{name},state")
    assert (key.columns, key.source) == ((), "position")
    assert f"declare key: [{name}]" in key.unsure


@pytest.mark.parametrize(("first", "second"), [(range(40), range(18, 60)), (range(10), range(5, 200))])
def test_keys_name_of_two_nodes_of_which_one_shares_less_than_half(first: range, second: range) -> None:
    one, other = ([[f"r{number}", number % 7] for number in numbers] for numbers in (first, second))
    for tables in ((one, other), (other, one)):
        key = key_of(*tables, heading="name,state")
        assert (key.columns, key.source) == (("name",), "inferred")
        assert ("at 1 of 2 nodes most of its values are in no other version" in key.unsure) == (
            2 * len({*first} & {*second}) < max(len(first), len(second))
        )
    apart = [[f"s{number}", number % 7] for number in second]
    assert key_of(one, apart, heading="name,state").source == "position"


def test_keys_integers_that_identify_are_said_to_be_numbers() -> None:
    rows = [[11, "x"], [25, "x"], [36, "y"]]
    key = key_of(rows, rows[::-1], [*rows, [77, "x"]], heading="nr,state")
    assert key.columns == ("nr",)
    assert "only with numbers" in key.unsure
    assert "declare key: [nr]" in key.unsure


def test_keys_integers_that_change_between_nodes_are_measured() -> None:
    counts = [100 + 7 * place for place in range(20)]

    def noisy(*places: int) -> Rows:
        return [[count + 1 if place in places else count, "x"] for place, count in enumerate(counts)]

    assert key_of(noisy(3), noisy(9), noisy(15, 4), heading="downloads,state").source == "position"
    assert key_of(noisy(), noisy(), noisy(3, 9, 15), heading="downloads,state").columns == ("downloads",)
    sparse = [[row for place, row in enumerate(noisy()) if place % 5 != node] for node in range(5)]
    assert key_of(*sparse, heading="nr,state").columns == ("nr",)


def test_keys_integers_that_change_while_all_else_is_equal_are_measured() -> None:
    rest = [[0.5, 2.25], [0.75, 3.5], [1.25, 9.5], [1.5, 8.5]]
    one, other = ([[n, *row] for n, row in zip(ns, rest, strict=True)] for ns in ([5, 6, 7, 8], [5, 9, 7, 8]))
    assert key_of(one, other, heading="n,x,y").source == "position"


def test_keys_texts_that_change_in_place_are_no_names() -> None:
    tables = [
        [[f"2026-01-01 0{hour}:0{node * (hour % 3 == node)}", hour % 2] for hour in range(10)]
        for node in range(3)
    ]
    assert key_of(*tables, heading="updated,odd").source == "position"


# not unique, missing, not shared


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([["a", 1], ["b", 2], ["a", 3]], "1 record repeats an earlier one, first record 3 ('a')"),
        ([["a", 1], ["a", 2], ["a", 3]], "2 records repeat an earlier one, first record 2 ('a')"),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_keys_repeated_at_one_node_that_abstains_and_says_which(bad: Rows, why: str, declared: bool) -> None:
    good = text("id,v", [["a", 1], ["b", 2], ["c", 3]])
    rule: dict[str, Any] = {"key": ["id"]} if declared else {}
    found = vote(good, good, good, good, text("id,v", bad), **rule)
    assert list(found.abstained) == ["n4"]
    assert why in found.abstained["n4"]
    assert "declare key columns" in found.abstained["n4"]
    assert found.key == Key(("id",), "declared" if declared else "inferred")
    assert found.content == good.encode()


def test_keys_missing_in_json_records_are_counted_and_shown() -> None:
    good = '[{"id": 1, "v": 1}, {"id": 2, "v": 2}]'
    bad = '[{"id": 1, "v": 1}, {"v": 2}, {"v": 3}]'
    found = vote(good, good, bad, path="d.json", key=["id"])
    assert "missing in 2 records, first in record 2" in found.abstained["n2"]
    absent = vote(good, good, '[{"v": 1}]', path="d.json", key=["id"])
    assert absent.abstained == {"n2": "it has no column 'id', which the key names"}


def test_keys_repeated_in_most_versions_are_none() -> None:
    bad = table("id,v", [["a", 1], ["a", 2]])
    good = table("id,v", [["a", 1], ["b", 2]])
    with pytest.raises(NotRecords, match="in most versions the key id is not unique"):
        vote_key([bad, good], [2, 1], ["id"])
    folded = table("id,v", [["a", 1], ["A", 2]])
    with pytest.raises(NotRecords, match="not unique without case"):
        vote_key([folded, good], [2, 1], ["id"], ["case"])
    key, faults = vote_key([folded, good], [1, 2], ["id"], ["case"])
    assert (key.fold, list(faults)) == (("case",), [0])


def test_keys_of_which_many_nodes_have_repetitions_are_unsure() -> None:
    good, bad = [["a", 1], ["b", 2]], [["a", 1], ["a", 2]]
    key = key_of(good, good, good, bad, bad, heading="id,v")
    assert "not unique at 2 of 5 nodes" in key.unsure


def test_keys_shared_by_barely_more_than_half_are_unsure() -> None:
    rows = [["a", 1.5], ["b", 2.5], ["c", 3.5]]
    others = [[[f"{letter}{node}", 1.5] for letter in "xyz"] for node in range(2)]
    key = key_of(rows, rows[::-1], rows[1:] + rows[:1], *others, heading="id,v")
    assert "only 3 of 5 nodes share" in key.unsure


def test_keys_of_sparse_nodes_hold_though_no_record_is_at_most_of_them() -> None:
    names = [f"flight-{number}" for number in range(60)]
    tables = [[[name, 0.5] for at, name in enumerate(names) if (at + node) % 5 < 2] for node in range(5)]
    key = key_of(*tables, heading="flight_id,gate")
    assert key.columns == ("flight_id",)
    assert "minority" in key.unsure


def test_keys_of_which_another_column_would_do_as_well_are_unsure() -> None:
    names = [["a", "p"], ["b", "q"], ["c", "r"], ["d", "s"]]
    crossed = [["a", "q"], ["b", "p"], ["c", "s"], ["e", "r"]]
    key = key_of(names, names, crossed, heading="one,other")
    assert key.columns == ("other",)  # all nodes have all of them
    assert "one would do as well" in key.unsure


def test_keys_volatile_and_left_out_fields_are_none() -> None:
    tables = [[[f"{name}{node}", name, 1] for name in "abc"] for node in range(3)]
    for rule in ("volatile", "ignore"):
        assert key_of(*tables, heading="id,label,n", **{rule: ["id"]}).columns == ("label",)


# hostile texts


@pytest.mark.parametrize(
    "names",
    [
        ["#", "##", "###"],
        ["a,b", 'a"b', "a\nb"],
        [".*", "$1", "${1}"],
        ["\u202eevil", "\u200bzero", "\ufeffmark"],
        ["İ", "\u0131", "i̇x"],
        ["ﬁ", "ﬂ", "ŉ"],
        ["\U0001d4b3", "😀", "🏳️\u200d🌈"],
        [" ", "  x", "\t"],
        ["null", "NaN", "-"],
        ["x" * 5000, "x" * 5001, "y"],
    ],
)
def test_keys_of_hostile_names(names: Sequence[str]) -> None:
    rows = [[name, number] for number, name in enumerate(names)]
    found = vote(text("name,v", rows), text("name,v", rows[::-1]), text("name,v", rows), key=["name"])
    assert found.key is not None
    assert found.key.columns == ("name",)
    assert found.content == text("name,v", rows).encode()
    assert not found.cells


@pytest.mark.parametrize("column", ["#", "\u00e9", "a b", "ID ", "_id", "id\u0301", "\\d", "match:id"])
def test_keys_of_hostile_column_names(column: str) -> None:
    rows = [["a", 1], ["b", 2], ["c", 3]]
    found = vote(*[text(f"{column},v", rows)] * 2, text(f"{column},v", [*rows[:2], ["c", 4]]), key=[column])
    assert [cell.key for cell in found.cells] == [("c",)]


def test_keys_of_nothing() -> None:
    assert vote_key([table("id,v", [])], [1])[0].columns == ("id",)
    assert choose_key([]).source == "position"
    assert vote("id,v\n", "id,v\n", "").content == b"id,v\n"


# one record, two tables


def test_keys_find_a_record_by_exact_text_before_one_that_counts_as_the_same() -> None:
    records = table("name,v", [["Foo", 1], ["É", 2]])
    folded = Key(("name",), "declared", fold=("case",), nfc=True)
    assert (find_record(records, folded, ["fOO"]) or {})["v"] == "1"
    assert (find_record(records, folded, ["e\u0301"]) or {})["v"] == "2"
    assert find_record(records, Key(("name",), "declared"), ["foo"]) is None
    both = table("name,v", [["foo", 1], ["Foo", 2]])
    assert (find_record(both, folded, ["Foo"]) or {})["v"] == "2"
    assert (find_record(table("name,v", [['"É"', 2]]), folded, ["é"]) or {})["v"] == "2"


def test_keys_compare_tables_with_other_case_as_a_change_of_the_name_alone() -> None:
    before, after = table("name,v", [["Foo", 1], ["bar", 2]]), table("name,v", [["bar", 2], ["foo", 1]])
    found = compare(before, after, choose_key([before, after], ["name"], ["case"]))
    assert (found.added, found.removed, found.changed, found.same) == (0, 0, 1, 1)
    assert found.rows[0].fields == {"name": ("Foo", "foo")}
    exact = compare(before, after, choose_key([before, after], ["name"]))
    assert (exact.added, exact.removed) == (1, 1)


# properties

letters = st.text(st.sampled_from("abßéΣ\u03c3ςİx 1-"), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(letters, max_size=8), st.sets(st.sampled_from(["case", "space", "accents"])))
def test_keys_folding_again_changes_nothing(texts: list[str], fold: set[str]) -> None:
    ways = [way for way in ("case", "space", "accents") if way in fold]
    once = fold_texts(polars.Series(texts, dtype=polars.String), ways)
    assert fold_texts(once, ways).to_list() == once.to_list()
    swapped = fold_texts(polars.Series([text.upper() for text in texts], dtype=polars.String), ["case"])
    lower = fold_texts(polars.Series(texts, dtype=polars.String), ["case"])
    assert swapped.to_list() == lower.to_list() or "İ" in "".join(texts)


cells = st.sampled_from(["a", "b", "c", "Ä", "e f", "B", "1", "2", "3.5", ""])


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.lists(st.tuples(cells, cells, cells), max_size=5), min_size=2, max_size=5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_keys_order_of_nodes_and_rows_does_not_matter(
    tables: list[list[tuple[str, str, str]]], random: Random, alike: bool
) -> None:
    if alike and tables[0]:  # versions of one table: records are missing, added and changed
        kept = [row for row in tables[0] if random.random() < 0.9]
        tables = [kept, *([*kept[:-1], *rows[:1]] for rows in tables[1:])]
    first = vote(*(text("name,v,n", rows) for rows in tables))
    random.shuffle(tables)
    tables = [random.sample(rows, len(rows)) for rows in tables]
    again = vote(*(text("name,v,n", rows) for rows in tables))
    assert first.key is not None
    assert again.key is not None
    assert (again.key.columns, again.key.fold) == (first.key.columns, first.key.fold)
    assert again.key.unsure == first.key.unsure
    if first.key.columns:  # records without a key are lines, which have an order
        lines = [sorted((found.content or b"").splitlines()) for found in (first, again)]
        assert lines[0] == lines[1]


def test_keys_of_few_records_do_not_depend_on_whether_files_are_equal() -> None:
    many = [[name, number] for name, number in zip(NAMES, STARS, strict=True)]
    few = many[:2]
    for some, others in ((few, many), (few[::-1], many), (few, many[::-1]), (few[::-1], many[::-1])):
        found = vote(*(text("repo,stars", rows) for rows in (few, some, many, others)))
        assert found.key is not None
        assert found.key.columns == ("repo",)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sets(st.sampled_from(NAMES), min_size=2), min_size=2, max_size=5),
    st.lists(st.sampled_from([str, str.upper, str.lower]), min_size=5, max_size=5),
    st.randoms(use_true_random=False),
)
def test_keys_folding_does_not_depend_on_the_order_of_rows(
    brought: list[set[str]], spellings: list[Callable[[str], str]], random: Random
) -> None:
    stars = dict(zip(NAMES, STARS, strict=True))
    tables = [
        [[spell(name), stars[name]] for name in NAMES if name in names]
        for names, spell in zip(brought, spellings, strict=False)
    ]
    first = vote(*(text("repo,stars", rows) for rows in tables))
    again = vote(*(text("repo,stars", random.sample(rows, len(rows))) for rows in tables))
    assert again.key == first.key
    if first.key is not None and first.key.columns:
        assert sorted((again.content or b"").splitlines()) == sorted((first.content or b"").splitlines())
