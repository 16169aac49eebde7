"""What the record files of some commits are, and a definition that pins it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from mao_git import Clone
from mao_shared.errors import NotFound
from mao_shared.models.round import FieldRule, FileRule, VoteDefinition
from mao_shared.models.schema import FileSchema, Schema
from mao_vote import decide_file, describe_schema, list_record_files, schema

from .repo import commit, new_repository

CSV = (
    "id,when,code,temp,km,zip,v,note\n"
    "x,21:05,404,21.5,12 km,08001,3.10,NA\n"
    "y,9:05 PM,403,22.25,3.5 km,10115,3.9,fine\n"
    "z,10:00,200,,1 km,80331,3.1,bad\n"
)
KINDS = {
    "when": "time",
    "code": "identifier",
    "temp": "number",
    "km": "number",
    "zip": "identifier",
    "v": "identifier",
    "note": "text",
}
PATH = "a[1].csv"


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return new_repository(tmp_path / "r.git")


def described(clone: Clone, *contents: str, definition: VoteDefinition | None = None) -> Schema:
    commits = {f"n{number}": commit(clone, {PATH: text}) for number, text in enumerate(contents)}
    return describe_schema(clone, commits, definition or VoteDefinition(), [PATH])


def kinds(file: FileSchema) -> dict[str, str]:
    return {field.name: field.kind for field in file.fields}


def test_describe_schema_of_a_table(clone: Clone) -> None:
    found = described(clone, CSV, CSV, CSV.replace("21.5", "broken"))
    (file,) = found.files
    assert (file.path, file.key, file.key_source, file.whole) == (PATH, ["id"], "inferred", "")
    assert kinds(file) == KINDS
    fields = {field.name: field for field in file.fields}
    assert (fields["km"].unit, fields["note"].missing, fields["temp"].nodes) == ("km", ["NA"], 3)
    assert "declare number" in fields["v"].unsure


def test_describe_schema_pinned_definition_changes_nothing(clone: Clone) -> None:
    before = VoteDefinition(
        deadline=60,
        files=[
            FileRule(path="*.csv", fields={"when": FieldRule(tolerance=600)}, ignore=["code"]),
            FileRule(path="*.json", opaque=True),
        ],
    )
    found = described(clone, CSV, CSV, CSV, definition=before)
    pinned = found.pinned()
    assert (pinned.deadline, [rule.path for rule in pinned.files]) == (60, ["a[[]1].csv", "*.csv", "*.json"])
    rule = pinned.rule_for(PATH)
    assert (rule.key, rule.ignore, rule.fields["when"]) == (
        ["id"],
        ["code"],
        FieldRule(type="time", tolerance=600),
    )
    again = described(
        clone, CSV, CSV, CSV, definition=VoteDefinition.model_validate(pinned.model_dump(mode="json"))
    )
    assert kinds(again.files[0]) == kinds(found.files[0])
    assert {field.source for field in again.files[0].fields} == {"declared"}
    assert not any(field.unsure for field in again.files[0].fields)
    assert again.pinned() == pinned
    versions = {
        "a": CSV.encode(),
        "b": CSV.encode(),
        "c": CSV.replace("3.10", "3.1").replace("21.5", "21.6").encode(),
    }
    decisions = [
        decide_file(PATH, versions, incumbent=None, definition=definition, weights={})
        for definition in (before, pinned)
    ]
    assert decisions[0].content == decisions[1].content
    assert list(decisions[0].cells) == list(decisions[1].cells)


@pytest.mark.parametrize(
    ("content", "why"),
    [("a,a\n1,2\n", "two of its columns"), ("\udcff", "UTF-8")],
    ids=["columns", "encoding"],
)
def test_describe_schema_of_files_voted_as_a_whole(clone: Clone, content: str, why: str) -> None:
    data = content.encode(errors="surrogateescape")
    commits = {node: commit(clone, {PATH: data}) for node in ("a", "b")}
    (file,) = describe_schema(clone, commits, VoteDefinition(), [PATH]).files
    assert why in file.whole
    assert not file.fields


def test_describe_schema_of_other_files(clone: Clone) -> None:
    commits = {"a": commit(clone, {"x.bin": "1", PATH: CSV})}
    definition = VoteDefinition(files=[FileRule(path="*.csv", opaque=True)])
    found = describe_schema(clone, commits, definition, ["x.bin", PATH, PATH])
    assert [(file.path, bool(file.whole)) for file in found.files] == [("x.bin", True), (PATH, True)]
    assert found.pinned() == definition
    with pytest.raises(NotFound) as raised:
        describe_schema(clone, commits, definition, ["none.csv"])
    assert raised.value.code == "path-not-found"


def test_describe_schema_versions_that_are_not_read(clone: Clone) -> None:
    (file,) = described(clone, CSV, CSV, "a,a\n").files
    assert list(file.abstained) == ["n2"]
    assert kinds(file) == KINDS


def test_describe_schema_with_a_rule_for_all_other_fields(clone: Clone) -> None:
    fields = {"*": FieldRule(type="text", fold=["case"]), "km": FieldRule(type="number")}
    rule = FileRule(path="*.csv", fields=fields)
    found = described(clone, CSV, CSV, definition=VoteDefinition(files=[rule]))
    assert kinds(found.files[0]) == dict.fromkeys(KINDS, "text") | {"km": "number"}
    pinned = found.pinned().rule_for(PATH).fields
    assert (pinned["when"], pinned["*"]) == (fields["*"], fields["*"])


def test_describe_schema_of_json(clone: Clone) -> None:
    records = [
        {"k": f"r{number}", "n": number, "t": "21:05", "tags": ["a"], "e": None} for number in range(3)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    entries = [{"name": f"e{number}", "n": number} for number in range(25)]
    document = json.dumps({"total": 1.5, "sub": {"at": "2026-01-05T10:00:00Z"}, "list": entries})
    commits = {node: commit(clone, {"l.jsonl": lines, "d.json": document}) for node in "abc"}
    found = describe_schema(clone, commits, VoteDefinition(), ["l.jsonl", "d.json"])
    assert kinds(found.files[0]) == {"n": "integer", "t": "time", "tags": "list", "e": "text"}
    file = found.files[1]
    assert (file.document, file.key, file.lists) == (True, [], {"/list": ["name"]})
    assert kinds(file) == {
        "total": "number",
        "at": "datetime",
        "/list/*/name": "identifier",
        "/list/*/n": "integer",
    }
    pinned = found.pinned()
    rule = pinned.rule_for("d.json")
    assert (rule.key, rule.fields["/list"]) == ([], FieldRule(key=["name"]))
    again = describe_schema(clone, commits, pinned, ["l.jsonl", "d.json"])
    assert [kinds(file) for file in again.files] == [kinds(file) for file in found.files]
    assert again.pinned() == pinned


def test_describe_schema_of_many_files(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_SCHEMA_FILES", 2)
    files = {f"{number}.csv": CSV for number in range(5)}
    made = commit(clone, {**files, ".mao/rounds/x.json": "{}", "notes.txt": "x"})
    paths = list_record_files(clone, [made], VoteDefinition(files=[FileRule(path="4*", opaque=True)]))
    assert paths == ["0.csv", "1.csv", "2.csv", "3.csv"]
    found = describe_schema(clone, {"a": made}, VoteDefinition(), paths)
    assert ([file.path for file in found.files], found.more) == (["0.csv", "1.csv"], 2)


def test_describe_schema_of_many_fields(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_SCHEMA_FIELDS", 3)
    assert len(described(clone, CSV, CSV).files[0].fields) == 3


def test_describe_schema_shows_the_noise_that_a_vote_finds(clone: Clone) -> None:
    random = Random(7)

    def table() -> str:
        lines = (
            f"r{row},{row + random.gauss(0, 0.1):.3f},{row},2026-01-{10 + row % 9 + random.randrange(2)}"
            for row in range(40)
        )
        return "id,temp,count,day\n" + "\n".join(lines) + "\n"

    contents = [table() for _ in range(5)]
    rule = FileRule(path="*", key=["id"], fields={"day": FieldRule(type="date", tolerance="2d")})
    definition = VoteDefinition(files=[rule])
    (file,) = described(clone, *contents, definition=definition).files
    fields = {field.name: field for field in file.fields}
    temp, count, day = (fields[name] for name in ("temp", "count", "day"))
    assert (temp.measured, temp.noise, count.noise, day.noise) == (True, "estimated", "exact", "declared")
    assert 0.1 < temp.tolerance < 0.5
    assert day.tolerance == 2
    versions = {f"n{number}": text.encode() for number, text in enumerate(contents)}
    voted = decide_file(PATH, versions, incumbent=None, definition=definition, weights={})
    found = next(field for field in voted.fields if field.name == "temp")
    assert (found.tolerance, found.error, found.noise) == (temp.tolerance, temp.error, temp.noise)


def test_describe_schema_names_paths_that_apply_to_no_file(clone: Clone) -> None:
    paths = ["a[[]1].csv", "*.csv", "b/*.json"]  # the second is shadowed by no file of its own
    definition = VoteDefinition(files=[FileRule(path=path) for path in paths])
    assert described(clone, CSV, CSV, definition=definition).unmatched == paths[1:]
    assert described(clone, CSV, CSV).unmatched == []
