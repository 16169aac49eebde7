"""Generated files keep undisputed content byte for byte through a round, a diff and an archive."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mao_datamgmt.browse.archive import Packing, open_archive, write_archive
from mao_datamgmt.browse.diff import difference
from mao_datamgmt.context import Context
from mao_git import Clone
from mao_shared.models.dataset import RowsDifference
from mao_shared.models.round import FieldRule, FileRule, VoteDefinition
from tests.support.git import bare_repository, git
from tests.support.json_strategies import NUMBERS, STRINGS
from tests.vote.repo import commit, vote

from .world import context_for

NAMES = ("a", "a b", "ü;x", "#1", "x,y", "-n", "v=1.10", "don't")
ENDINGS = ("csv", "tsv", "json", "jsonl")
EMPTY_COUNTS = VoteDefinition(files=[FileRule(fields={"*": FieldRule(missing_is_value=True)})])
"""Otherwise the noise of one node is the only observation where the others have an empty text."""
CELLS = {"json": NUMBERS + STRINGS, "jsonl": NUMBERS + STRINGS, "csv": NUMBERS, "tsv": NUMBERS}
LAYOUTS = {
    "csv": ("", "", "\n", "\r\n", "\n\n"),
    "tsv": ("", "", "\n", "\r\n", "\n \n"),
    "json": ("[", "]\n", ",\n", " , ", ",\r\n\r\n"),
    "jsonl": ("", "\n", "\n", "\r\n", "\n\n"),
}

Rows = list[list[str]]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Return a context with a clone of a dataset `data`."""
    context = context_for(tmp_path_factory.mktemp("node"))
    context.data.clone("data").parent.mkdir(parents=True, exist_ok=True)
    clone = bare_repository(context.data.clone("data"))
    git(clone, "remote", "add", "origin", str(clone))
    return context


def written(ending: str, rows: Rows, between: int, mark: bytes = b"") -> bytes:
    """Return a file of records with the key `id` and the fields `v,1` and `w`."""
    begin, end, *gaps = LAYOUTS[ending]
    if ending in ("csv", "tsv"):
        separator = "," if ending == "csv" else "\t"
        lines = [
            separator.join(fields)
            for fields in [["id", '"v,1"', "w"], *([f'"r{n}"', *row] for n, row in enumerate(rows))]
        ]
    else:
        lines = [f'{{"id": "r{n}","v,1" :{v}, "w":{w}}}' for n, (v, w) in enumerate(rows)]
    return mark + (begin + gaps[between].join(lines) + end).encode()


def spoilt(rows: Rows, place: int, column: int) -> Rows:
    return [
        [("77" if (r, c) == (place, column) else v) for c, v in enumerate(row)] for r, row in enumerate(rows)
    ]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, Rows, int, bytes]:
    ending = draw(st.sampled_from(ENDINGS))
    cells = st.sampled_from(CELLS[ending])
    rows = draw(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=3, max_size=5))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    folder = draw(st.sampled_from(["", "d/", "ä ö/"]))
    return f"{folder}{draw(st.sampled_from(NAMES))}.{ending}", rows, draw(st.integers(0, 2)), mark


quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(file=files())
def test_undisputed_round_keeps_what_nobody_disputes(
    context: Context, file: tuple[str, Rows, int, bytes]
) -> None:
    path, rows, between, mark = file
    ending = path.rpartition(".")[2]
    clone = Clone.open(context.data.clone("data"))
    versions = {f"n{n}": {path: written(ending, spoilt(rows, n, n % 2), between, mark)} for n in range(3)}
    voted = vote(clone, versions, definition=EMPTY_COUNTS)
    assert clone.read_file(voted.tree, path) == written(ending, rows, between, mark)


@quick
@given(file=files(), place=st.integers(0, 2), column=st.integers(0, 1))
def test_undisputed_diff_shows_values_as_they_are_written(
    context: Context, file: tuple[str, Rows, int, bytes], place: int, column: int
) -> None:
    path, rows, between, mark = file
    ending = path.rpartition(".")[2]
    clone = Clone.open(context.data.clone("data"))
    before = commit(clone, {path: written(ending, rows, between, mark)})
    after = commit(clone, {path: written(ending, spoilt(rows, place, column), between, mark)})
    found = difference(context, "data", before, after, path).rows
    assert isinstance(found, RowsDifference)
    assert (found.changed, found.added, found.removed, found.same) == (1, 0, 0, len(rows) - 1)
    (fields,) = (row.fields for row in found.rows)
    shown = fields[("v,1", "w")[column]]
    assert shown.after == "77"
    assert shown.before == rows[place][column] or _same_letters(shown.before, rows[place][column])


def _same_letters(shown: str | None, raw: str) -> bool:
    """True if both texts are the same JSON string once escapes are decoded."""
    return raw.startswith('"') and json.loads(shown or "") == json.loads(raw)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.10", "1.1"),
        ("1E5", "1e5"),
        ("-0", "0"),
        ("9007199254740993", "9007199254740992"),
        ("1e500", "1e501"),
        ("0.1", "0.1000"),
    ],
)
def test_undisputed_diff_tells_spellings_apart(context: Context, ending: str, one: str, other: str) -> None:
    clone = Clone.open(context.data.clone("data"))
    commits = [
        commit(clone, {f"a.{ending}": written(ending, [[content, "1"]], 0)}) for content in (one, other)
    ]
    found = difference(context, "data", commits[0], commits[1], f"a.{ending}").rows
    assert found is not None
    (row,) = found.rows
    assert (row.fields["v,1"].before, row.fields["v,1"].after) == (one, other)


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("a.json", b'[{"id":"\\u00e4"}]', '[{"id": "ä"}]'.encode()),
        ("a.csv", b'id,v\n1,"2"\n', b"id,v\n\n1,2\n"),
        ("a.jsonl", b'{"a":1,"b":2}\n', b'{"b": 2, "a": 1}'),
    ],
)
def test_undisputed_diff_says_when_only_writing_differs(
    context: Context, path: str, one: bytes, other: bytes
) -> None:
    clone = Clone.open(context.data.clone("data"))
    commits = [commit(clone, {path: content}) for content in (one, other)]
    found = difference(context, "data", commits[0], commits[1], path)
    assert found.rows is not None
    assert found.rows.rows == []
    assert "formatted differently" in (found.note or "")


@quick
@given(made=st.lists(files(), min_size=1, max_size=4), packing=st.sampled_from(["tar.gz", "zip"]))
def test_undisputed_archive_holds_what_was_written(
    context: Context, made: list[Any], packing: Packing
) -> None:
    contents = {
        path: written(path.rpartition(".")[2], rows, between, mark) for path, rows, between, mark in made
    }
    clone = Clone.open(context.data.clone("data"))
    packed = b"".join(write_archive(open_archive(context, "data", commit(clone, contents), ""), packing))
    assert {name.partition("/")[2]: data for name, data in unpacked(packed, packing).items()} == contents


def unpacked(packed: bytes, packing: Packing) -> dict[str, bytes]:
    if packing == "zip":
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return {
                member.filename: archive.read(member) for member in archive.infolist() if not member.is_dir()
            }
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [
            (member.name, archive.extractfile(member)) for member in archive.getmembers() if member.isfile()
        ]
        return {name: opened.read() for name, opened in members if opened is not None}


def test_undisputed_files_of_made_up_round_are_decided_by_record(context: Context) -> None:
    """The tests above rely on this: with noise in every version no file is taken whole."""
    clone = Clone.open(context.data.clone("data"))
    rows = [["1.10", "1e500"], ["-0", "1E5"], ["0.1e+1", "12345678901234567890123"]]
    versions = {
        f"n{n}": {f"a.{ending}": written(ending, spoilt(rows, n, n % 2), 1) for ending in ENDINGS}
        for n in range(3)
    }
    voted = vote(clone, versions)
    assert {file.how for file in voted.evidence.files} == {"records"}
