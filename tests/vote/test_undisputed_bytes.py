"""A vote preserves undisputed content byte for byte."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FieldRule, FileRule, VoteDefinition
from mao_vote import decide_file
from tests.support.json_strategies import NUMBERS
from tests.support.json_strategies import STRINGS as JSON_STRINGS

STRINGS = [*JSON_STRINGS, "null", "true", '{"z": [1.0, 2], "a":1e2}']
CSV_CELLS = [
    "plain",
    '"needless"',
    '"a,b"',
    '"c;d"',
    '"q""q"',
    '"line\nbreak"',
    " led ",
    "",
    '""',
    "ä€",
    *NUMBERS,
]
NAMES = ["id", "x", "lake, depth"]
EMPTY_COUNTS = FieldRule(missing_is_value=True)  # so that each cell is disputed
KEYED = VoteDefinition(files=[FileRule(key=["id"], fields={"*": EMPTY_COUNTS})])
UNKEYED = VoteDefinition(files=[FileRule(fields={"*": EMPTY_COUNTS})])

Table = list[list[str]]
Noise = Sequence[tuple[int, int]]
Write = Callable[[Table], bytes]


def tables(cells: list[str]) -> st.SearchStrategy[Table]:
    """Raw cells of records; every table has as many rows as nodes vote, so that each can spoil a row."""
    return st.lists(st.lists(st.sampled_from(cells), min_size=3, max_size=3), min_size=3, max_size=8)


def spoilt(table: Table, at: tuple[int, int], word: str) -> Table:
    row, column = at
    return [
        [word if (r, c) == (row, column) else cell for c, cell in enumerate(cells)]
        for r, cells in enumerate(table)
    ]


def decided(
    path: str, write: Write, table: Table, noise: Noise, word: str, definition: VoteDefinition
) -> bytes:
    """Vote three nodes' files, each with a different wrong cell."""
    versions = {f"n{n}": write(spoilt(table, at, word)) for n, at in enumerate(noise)}
    found = decide_file(path, versions, incumbent=None, definition=definition, weights={})
    assert found.content is not None
    return found.content


noises = st.permutations([(0, 0), (0, 1), (0, 2), (1, 1), (2, 0)]).map(lambda found: found[:3])


@settings(deadline=None)
@given(
    table=tables(CSV_CELLS),
    noise=noises,
    separator=st.sampled_from([",", ";", "|", "\t"]),
    ends=st.sampled_from(
        [("\n",), ("\r\n",), ("\n", "\r\n"), ("\n\n", "\n"), ("\r\n  \r\n",), ("\n \n\r\n", "\n")]
    ),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    first=st.sampled_from(["", "\n", " \r\n\n"]),
    last=st.sampled_from(["", "\n", "\r\n", "\n\n", "\n  "]),
    letters=st.booleans(),
)
def test_undisputed_csv_comes_out_as_it_went_in(
    table: Table,
    noise: Noise,
    separator: str,
    ends: tuple[str, ...],
    mark: bytes,
    first: str,
    last: str,
    letters: bool,
) -> None:
    if letters:  # quotes that hold no cells
        table = [[cell.replace('"', "").replace("\n", "") or '5" disk' for cell in row] for row in table]
        table = [[re.sub(r"[,;]", "", cell) for cell in row] for row in table]

    def write(rows: Table) -> bytes:
        heading = ["id", "x", 'lake 5"' if letters else '"lake, depth; m|\t"', "z"]
        lines = [
            separator.join(fields) for fields in [heading, *([f"r{n}", *row] for n, row in enumerate(rows))]
        ]
        between = [ends[n % len(ends)] for n in range(len(lines) - 1)]
        return mark + (first + "".join(map("".join, zip(lines, [*between, last], strict=True)))).encode()

    path = "a.tsv" if separator == "\t" else "a.csv"
    assert decided(path, write, table, noise, "NOISE", KEYED) == write(table)


@settings(deadline=None)
@given(
    table=tables([*NUMBERS, *STRINGS]),
    noise=noises,
    colon=st.sampled_from([":", ": ", " : "]),
    comma=st.sampled_from([",", ", ", " ,  "]),
    swapped=st.booleans(),
    ends=st.sampled_from(["", "\n", "\r\n", "\n\n \n"]),
    begin=st.sampled_from(["", "\n", " ", "\ufeff"]),
    between=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n", "\n  "]),
)
def test_undisputed_json_lines_come_out_as_they_went_in(
    table: Table,
    noise: Noise,
    colon: str,
    comma: str,
    swapped: bool,
    ends: str,
    begin: str,
    between: str,
) -> None:
    assert decided(
        "a.jsonl",
        (write := json_writer(begin, between, "", colon, comma, swapped, ends)),
        table,
        noise,
        '"NOISE"',
        KEYED,
    ) == write(table)


@settings(deadline=None)
@given(
    table=tables([*NUMBERS, *STRINGS]),
    noise=noises,
    layout=st.sampled_from(
        [("[", ",", "]"), ("[\n  ", ",\n  ", "\n]\n"), (" [ ", " , ", " ] "), ("[\r\n\t", ",\r\n\t", "\r\n]")]
    ),
    colon=st.sampled_from([":", ": "]),
    swapped=st.booleans(),
    uneven=st.sampled_from(["", "\n\n"]),
)
def test_undisputed_json_lists_come_out_as_they_went_in(
    table: Table, noise: Noise, layout: tuple[str, str, str], colon: str, swapped: bool, uneven: str
) -> None:
    begin, between, end = layout
    write = json_writer(begin, between, end, colon, ", ", swapped, "", uneven)
    assert decided("a.json", write, table, noise, '"NOISE"', KEYED) == write(table)


def json_writer(
    begin: str, between: str, end: str, colon: str, comma: str, swapped: bool, ends: str, uneven: str = ""
) -> Write:
    """Write records; if `swapped`, every other one has its fields in reverse order."""

    def write(rows: Table) -> bytes:
        records = []
        for number, row in enumerate(rows):
            names = ('"x"', '"\\u006e\\u00e4me"', '"z y"')
            members = [f'"id"{colon}"r{number}"', *map(colon.join, zip(names, row, strict=True))]
            records.append("{" + comma.join(reversed(members) if swapped and number % 2 else members) + "}")
        if uneven:
            records = [*records[:2], *(uneven + record for record in records[2:])]
        return (begin + between.join(records) + end + ends).encode()

    return write


@settings(deadline=None)
@given(table=tables([*NUMBERS, *STRINGS[:-1]]), noise=noises, space=st.sampled_from(["", " ", "\n    "]))
def test_undisputed_json_documents_come_out_as_they_went_in(table: Table, noise: Noise, space: str) -> None:
    def write(rows: Table) -> bytes:
        groups = [
            f'{space}"g/{n}":{space}{{"b~":{row[0]},{space}"a": [{row[1]}]}}' for n, row in enumerate(rows)
        ]
        return ("{" + ",".join([*groups, f'{space}"empty": {{ }},"none":[ ]']) + f"{space}}}\n").encode()

    assert decided("a.json", write, table, noise, '"NOISE"', UNKEYED) == write(table)


@settings(deadline=None)
@given(table=tables([*NUMBERS, *STRINGS[:-1]]), noise=noises, odd=st.integers(0, 2), where=st.integers(0, 3))
def test_undisputed_documents_lose_what_one_node_adds_and_nothing_else(
    table: Table, noise: Noise, odd: int, where: int
) -> None:
    def write(rows: Table, extra: str = "") -> bytes:
        groups = [
            f'"g{n}" :{{"b~": {row[0]},\n "a":[{row[1]} , 1.0],"c" : {row[2]}}}' for n, row in enumerate(rows)
        ]
        groups.insert(where, extra)
        return ("{ " + " ,\r\n".join(filter(None, groups)) + "\n}").encode()

    versions = {
        f"n{n}": write(spoilt(table, at, '"NOISE"'), '"new": {"x": [1.10 ,{"y":2}]}' if n == odd else "")
        for n, at in enumerate(noise)
    }
    found = decide_file("a.json", versions, incumbent=None, definition=UNKEYED, weights={})
    assert found.content == write(table)


@settings(deadline=None)
@given(
    table=tables([*NUMBERS, *STRINGS]),
    noise=noises,
    odd=st.integers(0, 2),
    how=st.sampled_from(["json", "jsonl"]),
    comma=st.sampled_from([",", " , "]),
    first=st.booleans(),
)
def test_undisputed_json_records_lose_the_field_that_one_node_adds_and_nothing_else(
    table: Table, noise: Noise, odd: int, how: str, comma: str, first: bool
) -> None:
    def write(rows: Table, *extra: str) -> bytes:
        records = []
        for number, row in enumerate(rows):
            members = [f'"id":"r{number}"', *(f'"{n}" :{v}' for n, v in zip("xyz", row, strict=True))]
            records.append("{ " + comma.join([*extra, *members] if first else [*members, *extra]) + "}")
        return ("\n".join(records) if how == "jsonl" else "[" + ",\n".join(records) + "]").encode()

    versions = {
        f"n{n}": write(spoilt(table, at, '"NOISE"'), *(['"new": [1.10,{}]'] if n == odd else []))
        for n, at in enumerate(noise)
    }
    found = decide_file(f"a.{how}", versions, incumbent=None, definition=KEYED, weights={})
    assert found.content == write(table)


@pytest.mark.parametrize(
    ("path", "contents"),
    [
        ("a.csv", ["id,x,y\na,1,2\n", "id,y,z\na,2,3\n", "id,z,x\na,3,1\n"]),
        ("a.json", ['{"x": 1, "y": 2}', '{"y": 2, "z": 3}', '{"z": 3, "x": 1}']),
    ],
)
def test_undisputed_file_that_is_rewritten_says_so(path: str, contents: list[str]) -> None:
    versions = {f"n{n}": text.encode() for n, text in enumerate(contents)}
    found = decide_file(path, versions, incumbent=None, definition=VoteDefinition(), weights={})
    assert found.notes[-1].startswith("written anew")


@pytest.mark.parametrize("space", ["", " "])
def test_undisputed_json_records_get_the_field_that_most_have_as_it_is_written(space: str) -> None:
    def write(number: int) -> bytes:
        others = [f'"{name}":{space}1.{n}0' for n, name in enumerate("abc") if n != number]
        return ('{"id":' + space + '"\\u00e4",' + f",{space}".join(others) + "}\n").encode()

    versions = {f"n{n}": write(n) for n in range(3)}
    found = decide_file("a.jsonl", versions, incumbent=None, definition=KEYED, weights={})
    assert found.content is not None
    text = found.content.decode()
    assert json.loads(text) == {"id": "ä", "a": 1.0, "b": 1.1, "c": 1.2}
    for part in ('"id":' + space + '"\\u00e4"', *(f'"{name}":{space}1.{n}0' for n, name in enumerate("abc"))):
        assert part in text


@pytest.mark.parametrize(
    ("ignored", "text", "kept"),
    [
        ("t", '{"a": 1.10, "t": 5,\n "b": 1E5}', '{"a": 1.10,\n "b": 1E5}'),
        ("t", '{"t": %d, "a": "\\u00e4"}', '{"a": "\\u00e4"}'),
        ("/l/0", '{"l": [ %d,1.0 , 2 ],"e":[ ]}', '{"l": [ 1.0 , 2 ],"e":[ ]}'),
        ("x", '{"o": {"x": %d}, "a":-0}', '{"a":-0}'),
    ],
)
def test_undisputed_documents_without_what_is_left_out(ignored: str, text: str, kept: str) -> None:
    definition = VoteDefinition(files=[FileRule(ignore=[ignored])])
    versions = {f"n{n}": text.replace("%d", str(n)).encode() for n in range(3)}
    found = decide_file("a.json", versions, incumbent=None, definition=definition, weights={})
    assert found.content == kept.encode()


@settings(deadline=None)
@given(
    table=tables([*CSV_CELLS[1:4], *NUMBERS, " led "]),
    noise=st.permutations([(0, 0), (1, 0), (2, 0)]),
    odd=st.integers(0, 2),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_undisputed_csv_loses_the_column_that_one_node_adds_and_nothing_else(
    table: Table, noise: Noise, odd: int, end: str
) -> None:
    def write(rows: Table, more: str = "") -> bytes:
        lines = [
            f'id,"x ""5""","y,z",w{more}',
            *(f"r{n},{','.join(row)}{more}" for n, row in enumerate(rows)),
        ]
        return end.join(lines).encode()

    versions = {
        f"n{n}": write(spoilt(table, at, "NOISE"), ',"new"' if n == odd else "") for n, at in enumerate(noise)
    }
    found = decide_file("a.csv", versions, incumbent=None, definition=KEYED, weights={})
    assert found.content == write(table)


def test_undisputed_csv_without_what_is_left_out_keeps_the_other_cells() -> None:
    definition = VoteDefinition(files=[FileRule(key=["id"], ignore=["t"])])
    versions = {f"n{n}": f'id,t,"v, w"\r\n"a",{n}, 1.10\r\n\r\nb,{n},"x""y"'.encode() for n in range(3)}
    found = decide_file("a.csv", versions, incumbent=None, definition=definition, weights={})
    assert found.content == b'id,"v, w"\r\n"a", 1.10\r\n\r\nb,"x""y"'


@pytest.mark.parametrize(
    ("path", "contents", "expected"),
    [
        # A blank line is no record; the record that only one node has is left out.
        ("a.csv", ["id,v\n\na,1.10\n", "id,v\na,1.10\nb,2\n", "id,v\n\na,1.10\nc,3\n"], "id,v\n\na,1.10\n"),
        (
            "a.json",
            ['[{"id":1,"v":1e999}]', '[{"id":1,"v":1e999},{"id":2}]', '[ {"id":1,"v":1e999},{"id":3}]'],
            '[{"id":1,"v":1e999}]',
        ),
        (
            "a.jsonl",
            ['{"id":1,"v":NaN}\n', '{"id":1,"v":NaN}\n{"id":2}\n', '{"id":1,"v":NaN}\n{"id":3}\n'],
            '{"id":1,"v":NaN}\n',
        ),
    ],
)
def test_undisputed_decide_file_leaves_out_what_one_node_adds(
    path: str, contents: list[str], expected: str
) -> None:
    versions = {f"n{n}": text.encode() for n, text in enumerate(contents)}
    found = decide_file(path, versions, incumbent=None, definition=KEYED, weights={})
    assert found.content == expected.encode()


@pytest.mark.parametrize("name", ['"q""n"', '"""all"""', '"x, 5"""'])
def test_undisputed_heading_that_is_rewritten_keeps_its_names(name: str) -> None:
    """Each column is missing in one version, so that no version's heading fits."""
    columns = {"id": "a", name: "1.10", "y": "2", "z": "3"}
    versions = {}
    for n, gone in enumerate((name, "y", "z")):
        kept = {column: cell for column, cell in columns.items() if column != gone}
        versions[f"n{n}"] = f"{','.join(kept)}\n{','.join(kept.values())}\n".encode()
    found = decide_file("a.csv", versions, incumbent=None, definition=KEYED, weights={})
    assert found.content is not None
    heading = found.content.decode().partition("\n")[0]
    assert set(next(csv.reader([heading]))) == {"id", next(csv.reader([name]))[0], "y", "z"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.json", '{"a": %s, "b": 1, "a": 2}'),
        ("a.json", '{"g": [{"a": %s, "\\u0061": 2}]}'),
        ("a.json", '[{"id": 1, "x": {"a": %s, "a": 2}}]'),
        ("a.jsonl", '{"id": 1, "a": %s, "a": 2}\n'),
        ("a.jsonl", '{"id": 1}\n{"id": 2, "n\\u00e4": %s, "nä": 2}\n'),
    ],
)
def test_undisputed_json_with_a_name_twice_is_decided_as_a_whole_and_says_so(path: str, text: str) -> None:
    versions = {f"n{n}": (text % value).encode() for n, value in enumerate(["1.10", "9", "1.10"])}
    found = decide_file(path, versions, incumbent=None, definition=KEYED, weights={})
    assert found.content == versions["n0"]
    assert "twice in one object" in found.warnings[0]
