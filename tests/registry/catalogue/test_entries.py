"""Entries of catalogues as records: translation of the original's words, hostile entries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mao_registry.catalogue.entries import MAX_ENTRY, Entry, Variable, read_catalogue, read_entry, secret_name
from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.models.catalogue import CatalogueContent
from mao_shared.models.secret import SecretRef

from .samples import LAB, PLACEHOLDER, original_content, read_lab


def pipeline(**fields: Any) -> Entry:
    """Return the entry of a pipeline with one step, with fields of the pipeline changed."""
    step = {"tool": "crawler", "output_dataset": "raw"}
    return read_entry("pipelines", {"name": "p", "steps": [step]} | fields, "pipelines[0]")


def step(**fields: Any) -> Entry:
    return pipeline(steps=[{"tool": "crawler", "output_dataset": "raw"} | fields])


def tool(**fields: Any) -> Entry:
    return read_entry("tools", {"name": "t", "image": "lab/t"} | fields, "tools[0]")


def test_entries_original_all_usable() -> None:
    catalogue = read_catalogue("original", original_content())
    assert [entry.faults for entry in catalogue.entries] == [()] * 19
    assert [entry.title for entry in catalogue.entries if entry.variables] == []
    asking = {
        entry.title: names
        for entry in catalogue.entries
        if isinstance(entry.record, Pipeline)
        and (names := [ref.env for step in entry.record.steps for ref in step.secrets])
    }
    assert asking == {
        "ArtifactHUB Collector with Helm download": ["ARTIFACT_HUB_API_KEY_ID", "ARTIFACT_HUB_API_KEY_SECRET"]
    }
    socket = catalogue.find("pipelines", "CIPolice Scanner")
    assert socket is not None
    assert isinstance(socket.record, Pipeline)
    assert socket.record.steps[0].engine_socket
    assert socket.record.steps[0].env["CIPOLICE_TIMESTAMPED_OUTPUT"] == "True"


def test_entries_words_of_original() -> None:
    entry = read_lab().find("pipelines", "Hub survey")
    assert entry is not None
    assert isinstance(entry.record, Pipeline)
    first, second = entry.record.steps
    assert (entry.name, entry.record.title) == ("Hub-survey", "Hub survey")
    assert (first.dataset, first.command, first.input_dataset, first.engine_socket) == (
        "raw",
        ["--all"],
        None,
        False,
    )
    assert first.env == {"DEPTH": "3", "QUICK": "True"}
    assert (second.name, second.title, second.input_dataset) == ("sum-up", "sum up", "raw")
    assert len(entry.notes) == 2
    assert "'True'" in entry.notes[1]


def test_entries_found_by_name_or_title() -> None:
    catalogue = read_lab()
    assert catalogue.find("pipelines", "Hub-survey") is catalogue.find("pipelines", "Hub survey")
    assert catalogue.find("tools", "Hub survey") is None


@pytest.mark.parametrize(
    "text", [PLACEHOLDER, "{{MAO_PRIVATE_VARIABLE}}", "{{   MAO_PRIVATE_VARIABLE }}", f"Bearer {PLACEHOLDER}"]
)
def test_entries_private_variables(text: str) -> None:
    entry = step(env={"A": "1", "KEY": text})
    assert isinstance(entry.record, Pipeline)
    assert (entry.record.steps[0].env, entry.variables) == ({"A": "1"}, ())
    assert entry.record.steps[0].secrets == [SecretRef(secret="crawler-key", env="KEY")]
    assert [note for note in entry.notes if "Bearer" in note] == list(entry.notes)
    assert bool(entry.notes) == text.startswith("Bearer")
    assert step(cmd=["--key", text]).variables == (Variable("crawler", "(command)"),)
    record = tool(env={"KEY": text}).record
    assert isinstance(record, Tool)
    assert (record.env, record.secrets) == ({}, [SecretRef(secret="t-key", env="KEY")])


@pytest.mark.parametrize(
    ("tool_name", "variable", "name"),
    [
        ("crawler", "API_KEY", "crawler-api-key"),
        ("a.b_c", "_X__Y_", "a-b-c-x-y"),
        ("t" * 63, "TOKEN", "t" * 63),
        ("A", "ß", "a-ss"),
    ],
)
def test_entries_secret_names(tool_name: str, variable: str, name: str) -> None:
    assert secret_name(tool_name, variable) == name


def test_entries_env_as_list() -> None:
    entry = step(env=["A=1", "B=x=y"])
    assert isinstance(entry.record, Pipeline)
    assert entry.record.steps[0].env == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("cron", "notes"),
    [("0 4 * * *", 0), ("0 4 * * mon", 0), ("*/5 * * * */2", 1), ("0 4 * * 0", 1), ("0 4 * * 1-5", 1)],
)
@pytest.mark.parametrize("word", ["cron", "schedule"])
def test_entries_proposed_schedule(word: str, cron: str, notes: int) -> None:
    """The original read 0 as Monday, crontab reads it as Sunday."""
    entry = pipeline(**{word: cron, "timezone": "Europe/Zurich"})
    assert (entry.cron, entry.timezone, len(entry.notes)) == (cron, "Europe/Zurich", notes)


@pytest.mark.parametrize("cron", [7, {"minute": 5}, "0 4 * * *\n", "x" * 201])
def test_entries_proposed_schedule_that_is_none(cron: Any) -> None:
    entry = pipeline(cron=cron)
    assert (entry.cron, entry.faults) == (None, ())
    assert "dropped" in entry.notes[0]


def test_entries_descriptive_fields_are_dropped() -> None:
    about = {"homepage": "https://x.example.org", "tags": ["a"], "licence": "MIT", "version": 2}
    assert tool(**about).faults == ()
    assert pipeline(**about).faults == ()


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (step(devices=["/dev/video0"]), "steps[0].devices: is not supported here"),
        (step(volumes=["/:/host"]), "steps[0].volumes: is not supported here"),
        (pipeline(on_failure="mail"), "on_failure: is not supported here"),
        (tool(gpu=True), "gpu: is not supported here"),
        (tool(image="--privileged"), "image: invalid image reference"),
        (tool(name="../../etc"), "name: '../../etc' is not the name of a tool"),
        (tool(name="a\n\x1b[31mb"), "is not the name of a tool"),
        (tool(env={"MAO_NODE": "x"}), "env: invalid name 'MAO_NODE'"),
        (tool(privileges={"capabilities": ["x y"]}), "privileges.capabilities[0]"),
        (step(tool="a b"), "steps[0].tool: invalid name"),
        (step(output_dataset="-x"), "steps[0].dataset: invalid name"),
        (step(env={"A": None}), "steps[0].env"),
        (step(cmd=[{}]), "steps[0].command[0]"),
        (pipeline(steps=[]), "steps"),
        (pipeline(steps="x"), "steps"),
        (pipeline(steps=[7]), "steps[0]"),
        (pipeline(name=""), "name"),
        (pipeline(name=7), "name"),
        (pipeline(name="a\nb"), "'\\n' is in the title"),
        (pipeline(description="x" * 10_001), "description"),
        (read_entry("pipelines", {"steps": []}, "pipelines[0]"), "name"),
        (read_entry("tools", [], "tools[0]"), "it is not an object"),
        (read_entry("tools", None, "tools[0]"), "it is not an object"),
        (read_entry("tools", {"name": "x" * MAX_ENTRY}, "tools[0]"), "it has more than"),
        (tool(description="\ud800"), "characters that JSON does not have"),
        (tool(author="\0"), "NUL"),
        (tool(limits={"cpu": float("nan")}), "numbers"),
        (read_entry("datasets", {"name": "d", "master": "/etc"}, "d"), "cannot name a folder"),
        (read_entry("datasets", {"name": "d", "master": "FILE:///etc"}, "d"), "cannot name a folder"),
        (read_entry("federations", {"name": "f", "contacts": "x"}, "f"), "list"),
        (read_entry("federations", {"name": "", "contacts": []}, "f"), "title is empty"),
    ],
)
def test_entries_unusable_say_why(entry: Entry, fault: str) -> None:
    assert any(fault in found for found in entry.faults), entry.faults
    assert entry.record is None
    assert entry.name
    for text in (entry.name, *entry.faults):
        assert text.isprintable()
        assert len(text) < 500
        text.encode()


def test_entries_one_bad_entry_hides_no_other() -> None:
    bad: list[Any] = [None, 7, "x", [], {}, {"name": None}, {"name": "\x1b[2J", "steps": 1}]
    catalogue = read_lab(pipelines=[*bad, *LAB["pipelines"]])
    pipelines = [entry for entry in catalogue.entries if entry.kind == "pipelines"]
    assert [bool(entry.faults) for entry in pipelines] == [True] * 7 + [False] * 5
    assert [entry.name for entry in pipelines[:7]] == [f"pipelines[{n}]" for n in range(7)]


def test_entries_name_used_twice_names_second() -> None:
    tools = [{"name": "a", "image": "first"}, {"name": "a", "image": "second"}]
    catalogue = read_catalogue("x", CatalogueContent(tools=tools))
    first, second = catalogue.entries
    assert isinstance(first.record, Tool)
    assert catalogue.find("tools", "a") is first
    assert (second.name, second.faults) == ("tools[1]", ("the name 'a' is used twice",))


def test_entries_datasets() -> None:
    remote = "git@git.example.org:mao/raw.git"
    entry = read_entry("datasets", {"name": "raw", "body": {"master": remote, "nodes": ["thief"]}}, "d")
    assert isinstance(entry.record, Dataset)
    assert (entry.record.master, entry.record.nodes) == (remote, [])
    assert read_entry("datasets", {"name": "raw", "description": "x"}, "d").record is None


def test_entries_are_strict_json_afterwards() -> None:
    for entry in read_lab().entries:
        if entry.record is not None:
            json.loads(entry.record.model_dump_json())
