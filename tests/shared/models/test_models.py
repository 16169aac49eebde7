"""Validation and normalisation by the models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mao_shared.models import (
    Dataset,
    Limits,
    NodeName,
    Pipeline,
    PipelineInit,
    Privileges,
    Round,
    Step,
    Tool,
)
from mao_shared.models.common import (
    Bytes,
    Command,
    Env,
    Name,
    Seconds,
    Timestamp,
    format_time,
    is_name,
    name_fault,
)
from mao_shared.models.tool import is_image_reference
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore


def _take(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize("text", ["a", "A9", "system-performance", "v1.2_3", "x" * 63, "node-1"])
def test_models_names(text: str) -> None:
    assert is_name(text)
    assert _take(Name, text) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("a/b", "'/'"),
        ("..", "'..'"),
        ("a..b", "'..'"),
        ("a b", "' '"),
        ("x" * 64, "64 characters"),
        ("x" * 300, "300 characters"),
        ("-a", "begins or ends"),
        ("a.", "begins or ends"),
        (".git", "begins or ends"),
        ("a.lock", "'.lock'"),
        ("a\n", "'\\n'"),
        ("é", "'\\xe9'"),
        ("a~1", "'~'"),
        ("a:b", "':'"),
        ("a@{b", "'@'"),
        ("a\x00", "'\\x00'"),
        ("\ud800", "'\\ud800'"),
    ],
)
def test_models_name_fault_names_the_character(text: str, fault: str) -> None:
    assert fault in str(name_fault(text))
    with pytest.raises(ValidationError):
        _take(Name, text)


@pytest.mark.parametrize("text", ["ground-truth", "HEAD", "a/b", ""])
def test_models_node_names_that_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        _take(NodeName, text)


@pytest.mark.parametrize(
    ("value", "size"),
    [(7, 7), ("7", 7), ("512m", 512 << 20), ("2G", 2 << 30), ("1.5k", 1536), ("1 KiB", 1024), ("0", 0)],
)
def test_models_sizes(value: Any, size: int) -> None:
    assert _take(Bytes, value) == size


@pytest.mark.parametrize("value", ["", "m", "-1", -1, "1x", "9" * 400, "9" * 20 + "t", 2**61, float("inf")])
def test_models_sizes_that_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        _take(Bytes, value)


@pytest.mark.parametrize(
    ("value", "seconds"), [(5, 5), ("90s", 90), ("1.5m", 90), ("12h", 43200), ("7d", 604800)]
)
def test_models_durations(value: Any, seconds: float) -> None:
    assert _take(Seconds, value) == seconds


@pytest.mark.parametrize("value", ["", "1w", "-1s", -1, "9" * 400, float("inf"), float("nan")])
def test_models_durations_that_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        _take(Seconds, value)


@pytest.mark.parametrize(
    ("value", "words"), [("sh -c 'a b'", ["sh", "-c", "a b"]), (["sh", "a b"], ["sh", "a b"])]
)
def test_models_commands(value: Any, words: list[str]) -> None:
    assert _take(Command, value) == words


@pytest.mark.parametrize("value", ['sh "', "", [], ["a\0"], [1]])
def test_models_commands_that_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        _take(Command, value)


def test_models_environments() -> None:
    assert _take(Env, {"PATH": "/bin", "_x1": ""}) == {"PATH": "/bin", "_x1": ""}
    assert _take(Env, None) == {}


@pytest.mark.parametrize("name", ["", "A=B", "1A", "A B", "MAO_RUN", "A\n", "é"])
def test_models_environment_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        _take(Env, {name: "x"})


@pytest.mark.parametrize(
    "text",
    [
        "busybox",
        "busybox:1.36",
        "lab/crawler",
        "ghcr.io/lab/crawler:1.4",
        "localhost:5000/a/b-c__d:v1",
        "127.0.0.1:5000/x",
        "[::1]:5000/x",
        "busybox@sha256:" + "a" * 64,
        "busybox:1@sha256:" + "a" * 64,
        "sha256:" + "a" * 64,
    ],
)
def test_models_image_references(text: str) -> None:
    assert is_image_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-v",
        "--privileged",
        "a b",
        "a\n",
        "UPPER",
        "a:",
        "a@sha256:1",
        "a//b",
        "/a",
        "a/",
        "a:b:c/",
        "é",
        "a;b",
    ],
)
def test_models_image_references_that_are_refused(text: str) -> None:
    assert not is_image_reference(text)


def test_models_tool_says_what_it_asks_for() -> None:
    tool = Tool.model_validate(
        {
            "name": "t",
            "image": "busybox",
            "network": "host",
            "privileges": {"user": "0:0", "capabilities": ["cap_net_raw"], "new_privileges": True},
        }
    )
    assert tool.asked() == ["user 0:0", "capability NET_RAW", "new privileges", "host network"]
    assert Tool(name="t", image="busybox").asked() == []


@pytest.mark.parametrize(
    "fields", [{"user": "-u"}, {"user": "nobody"}, {"user": "a b"}, {"user": ""}, {"capabilities": ["--x"]}]
)
def test_models_privileges_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Privileges.model_validate(fields)


@pytest.mark.parametrize(
    "fields", [{"cpu": 0}, {"cpu": float("nan")}, {"memory": 1}, {"pids": 0}, {"time": 0}]
)
def test_models_limits_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(fields)


def test_models_seeds_body_and_the_flat_one_are_the_same() -> None:
    seed = Dataset.model_validate({"name": "d", "body": {"master": "/d.git", "nodes": []}})
    assert seed == Dataset(name="d", master="/d.git")
    tool = Tool.model_validate({"name": "t", "body": {"author": "a", "image": "busybox"}})
    assert tool == Tool(name="t", author="a", image="busybox")


def test_models_init_of_seed_gives_one_step_named_after_the_tool() -> None:
    pipeline = PipelineInit.model_validate({"tool": "t", "dataset": "d"}).pipeline()
    assert pipeline == Pipeline(name="t", steps=[Step(tool="t", dataset="d", name="t")])


def test_models_later_seed_clients_words() -> None:
    step = Step.model_validate(
        {"tool": "t", "output_dataset": "d", "cmd": ["x"], "env": None, "docker_socket": False}
    )
    assert step == Step(tool="t", dataset="d", command=["x"])
    init = PipelineInit.model_validate({"tool": "t", "dataset": "d", "cmd": ["x"], "env": {"A": "1"}})
    assert (init.pipeline().steps[0].command, init.pipeline().steps[0].env) == (["x"], {"A": "1"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tool": "t"},
        {"name": "p", "steps": []},
        {"name": "p", "steps": [{"tool": "t", "dataset": "d"}], "cmd": ["x"]},
        {"name": "p", "steps": [{"tool": "t", "dataset": "d"}] * 2},
        {"tool": "t", "dataset": "d", "steps": [{"tool": "t", "dataset": "d"}]},
        {"name": "p", "steps": [{"tool": "t", "dataset": "d", "docker_socket": "perhaps"}]},
        {"name": "p", "steps": [{"tool": "t", "output_dataset": "d", "dataset": "e"}]},
    ],
)
def test_models_inits_that_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PipelineInit.model_validate(body)


def test_models_times_are_kept_in_utc_and_need_a_zone() -> None:
    assert _take(Timestamp, "2026-01-31T13:00:00+01:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert format_time(datetime(2026, 1, 31, 12, tzinfo=UTC)) == "2026-01-31T12:00:00Z"
    for text in ("2026-01-31T13:00:00", "0001-01-01T00:00:00+14:00", "3000-01-01T00:00:00Z"):
        with pytest.raises(ValidationError):
            _take(Timestamp, text)


def test_models_json_roundtrip() -> None:
    step = Step(tool="t", dataset="d", env={"A": "1"}, limits=Limits(cpu=0.5))
    pipeline = Pipeline(name="p", steps=[step], overlap="queue")
    assert Pipeline.model_validate(json.loads(pipeline.model_dump_json(exclude_none=True))) == pipeline


ROUND = {
    "dataset": "data",
    "id": "20260101T000000Z-p-s",
    "pipeline": "p",
    "step": "s",
    "tick": "2026-01-01T00:00:00Z",
    "opened_by": "a",
    "opened_at": "2026-01-01T00:00:00Z",
    "deadline": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("model", "fields"), [(Dataset, {"name": "data", "master": "/x.git"}), (Round, ROUND)]
)
async def test_models_duplicate_node_is_refused_unless_stored(
    model: type[Dataset | Round], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="the node 'b' is listed twice"):
        model.model_validate(fields | {"nodes": ["a", "b", "b"]})
    store = MemoryStore()
    await store.create("/x/data", json.dumps(fields | {"nodes": ["b", "a", "b"]}).encode())
    stored = await Records(store, "/x/", model).get("data")
    assert stored is not None
    assert stored.record.nodes == ["b", "a"]
