"""What no node disputes comes out of a vote byte for byte as it went in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_datamgmt.voting import decide_file
from mao_shared.models.vote import FileRule, VoteDefinition

NUMBERS = [
    "3.14159265358979323846264338327950288",
    "1e500",
    "-1E-500",
    "1.10",
    "0.1e+1",
    "-0",
    "12345678901234567890",
]
STRINGS = [
    '"plain"',
    '"ä€"',
    '"\\u00e4"',
    '"a,b]"',
    '"q\\"q"',
    '""',
    "null",
    "true",
    '"\\ud83d\\ude00"',
    '{"z": [1.0, 2], "a":1e2}',
]
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
KEYED = VoteDefinition(files=[FileRule(key=["id"])])

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
    """The vote of three nodes, of which each has another cell wrong."""
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
def test_csv_comes_out_as_it_went_in(
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
        lines = [separator.join(each) for each in [heading, *([f"r{n}", *row] for n, row in enumerate(rows))]]
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
    ends=st.sampled_from(["", "\n"]),
)
def test_json_lines_come_out_as_they_went_in(
    table: Table, noise: Noise, colon: str, comma: str, swapped: bool, ends: str
) -> None:
    assert decided(
        "a.jsonl",
        (write := json_writer("", "\n", "", colon, comma, swapped, ends)),
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
)
def test_json_lists_come_out_as_they_went_in(
    table: Table, noise: Noise, layout: tuple[str, str, str], colon: str, swapped: bool
) -> None:
    begin, between, end = layout
    write = json_writer(begin, between, end, colon, ", ", swapped, "")
    assert decided("a.json", write, table, noise, '"NOISE"', KEYED) == write(table)


def json_writer(
    begin: str, between: str, end: str, colon: str, comma: str, swapped: bool, ends: str
) -> Write:
    """Writes records; in every other one the fields are the other way round where `swapped`."""

    def write(rows: Table) -> bytes:
        records = []
        for number, row in enumerate(rows):
            names = ('"x"', '"\\u006e\\u00e4me"', '"z y"')
            members = [f'"id"{colon}"r{number}"', *map(colon.join, zip(names, row, strict=True))]
            records.append("{" + comma.join(reversed(members) if swapped and number % 2 else members) + "}")
        return (begin + between.join(records) + end + ends).encode()

    return write


@settings(deadline=None)
@given(table=tables([*NUMBERS, *STRINGS[:-1]]), noise=noises, space=st.sampled_from(["", " ", "\n    "]))
def test_json_documents_come_out_as_they_went_in(table: Table, noise: Noise, space: str) -> None:
    def write(rows: Table) -> bytes:
        groups = [
            f'{space}"g/{n}":{space}{{"b~":{row[0]},{space}"a": [{row[1]}]}}' for n, row in enumerate(rows)
        ]
        return ("{" + ",".join([*groups, f'{space}"empty": {{ }},"none":[ ]']) + f"{space}}}\n").encode()

    assert decided("a.json", write, table, noise, '"NOISE"', VoteDefinition()) == write(table)


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
def test_decide_file_leaves_out_what_one_node_adds(path: str, contents: list[str], expected: str) -> None:
    versions = {f"n{n}": text.encode() for n, text in enumerate(contents)}
    found = decide_file(path, versions, incumbent=None, definition=KEYED, weights={})
    assert found.content == expected.encode()
