"""Bad input: the status, the problem code and the next step for each."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .seed import DATASET, INIT, TOOL, enrol

LONG = "x" * 300
STEP = {"tool": "crawler", "dataset": "charts"}
CORRECT = "Correct what 'errors' lists"

U = 422
TOOLS, DATASETS, PIPELINES = "/registry/tools", "/registry/datasets", "/registry/pipelines"
PIPELINE_INIT = "/pipeline/init"

BODIES: list[tuple[str, Any, int, str, str]] = [
    (TOOLS, {**TOOL, "name": "a/b"}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "name": ".."}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "name": "a b"}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "name": LONG}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "name": ""}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "name": None}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "image": "-v"}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "image": "UPPER CASE"}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "env": {"A=B": "x"}}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "env": {"MAO_RUN": "x"}}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "limits": {"memory": "9" * 400}}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "limits": {"time": "for ever"}}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "command": 'sh -c "'}, U, "invalid-input", CORRECT),
    (TOOLS, {**TOOL, "colour": "red"}, U, "invalid-input", CORRECT),
    (
        TOOLS,
        {**TOOL, "code_repo": "https://u:p@h/x"},
        U,
        "secret-in-record",
        "without the part before '@'",
    ),
    (TOOLS, [], U, "invalid-input", CORRECT),
    (TOOLS, TOOL, 409, "already-exists", "maoctl tool get crawler"),
    (DATASETS, DATASET, 409, "already-exists", "maoctl dataset get charts"),
    (DATASETS, {"name": "d"}, U, "invalid-input", CORRECT),
    (
        DATASETS,
        {"name": "d", "body": {"master": "ext::sh -c id"}},
        U,
        "dataset-url-refused",
        "ssh://",
    ),
    (
        DATASETS,
        {"name": "d", "master": "/d", "nodes": ["ground-truth"]},
        U,
        "invalid-input",
        CORRECT,
    ),
    (DATASETS, {"name": "d", "master": "/d", "nodes": ["HEAD"]}, U, "invalid-input", CORRECT),
    (DATASETS, {"name": "d", "master": "/d", "nodes": ["a", "a"]}, U, "invalid-input", CORRECT),
    (
        PIPELINES,
        {"name": "crawler", "steps": [STEP]},
        409,
        "already-exists",
        "pipeline get crawler",
    ),
    (PIPELINES, {"name": "p", "steps": []}, U, "invalid-input", CORRECT),
    (PIPELINES, {"name": "p", "steps": [STEP, STEP]}, U, "invalid-input", CORRECT),
    (PIPELINES, {"name": "p", "steps": [STEP] * 41}, U, "invalid-input", CORRECT),
    (
        PIPELINES,
        {"name": "p", "steps": [{**STEP, "tool": "no"}]},
        U,
        "unknown-tool",
        "maoctl tool add",
    ),
    (PIPELINE_INIT, {"tool": "no", "dataset": "charts"}, U, "unknown-tool", "maoctl tool add"),
    (PIPELINE_INIT, {"tool": "crawler", "dataset": "no"}, U, "unknown-dataset", "maoctl dataset add"),
    (
        PIPELINE_INIT,
        {"name": "p", "steps": [{**STEP, "input_dataset": "no"}]},
        U,
        "unknown-dataset",
        "dataset add",
    ),
    (PIPELINE_INIT, {"name": "p", "steps": [STEP, STEP]}, U, "invalid-input", CORRECT),
    (PIPELINE_INIT, {"tool": "crawler"}, U, "invalid-input", CORRECT),
    (PIPELINE_INIT, {"tool": "a/b", "dataset": "charts"}, U, "invalid-input", CORRECT),
    (PIPELINE_INIT, {**INIT, "steps": [STEP]}, U, "invalid-input", CORRECT),
    (
        PIPELINE_INIT,
        {"name": "p", "steps": [{**STEP, "docker_socket": True}]},
        U,
        "agreement-needed",
        "--agree 'docker socket'",
    ),
    (PIPELINE_INIT, INIT, 409, "already-exists", "maoctl pipeline run crawler"),
    (PIPELINE_INIT, {**INIT, "overlap": "queue"}, 409, "already-exists", "maoctl pipeline get crawler"),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "next_step"), BODIES)
async def test_body_invalid_is_problem(
    quick_api: httpx.AsyncClient, path: str, body: Any, status: int, code: str, next_step: str
) -> None:
    await enrol(quick_api)
    answer = await quick_api.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert next_step in answer.json()["next"]
    assert answer.headers["content-type"] == "application/problem+json"


CALLS: list[tuple[str, str, int, str]] = [
    ("GET", "/registry/tools/no", 404, "not-found"),
    ("PUT", "/registry/tools/no", 422, "name-mismatch"),
    ("DELETE", "/registry/tools/no", 404, "not-found"),
    ("GET", "/registry/tools/a%20b", 422, "invalid-input"),
    ("GET", "/registry/tools/%2e%2e", 422, "invalid-input"),
    ("GET", f"/registry/tools/{LONG}", 422, "invalid-input"),
    ("GET", "/registry/tools/a%2fb", 404, "no-such-route"),
    ("DELETE", "/registry/datasets/a%00b", 422, "invalid-input"),
    ("GET", "/registry/tools?limit=0", 422, "invalid-input"),
    ("GET", "/registry/tools?limit=1001", 422, "invalid-input"),
    ("GET", "/registry/tools?cursor=x", 422, "cursor-invalid"),
    ("GET", "/registry/nodes/far", 404, "not-found"),
    ("DELETE", "/registry/nodes/far", 404, "not-found"),
    ("GET", "/enrolments/no", 404, "not-enrolled"),
    ("PUT", "/enrolments/no", 404, "not-found"),
    ("DELETE", "/enrolments/no", 404, "not-enrolled"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), CALLS)
async def test_path_invalid_is_problem(
    quick_api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    body = {"json": TOOL} if method == "PUT" and "tools" in path else {}
    answer = await quick_api.request(method, path, **body)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    assert answer.json()["next"]


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe", b"name=crawler"])
async def test_body_not_json_is_problem(quick_api: httpx.AsyncClient, text: bytes) -> None:
    answer = await quick_api.post(
        "/registry/tools", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "body-not-json"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/b", "'/' is in it"),
        ("..", "'..' is in it"),
        ("a b", "' ' is in it"),
        (LONG, "300 characters"),
        ("", "empty"),
        ("-a", "begins or ends"),
    ],
)
async def test_name_invalid_states_reason(quick_api: httpx.AsyncClient, name: str, words: str) -> None:
    answer = await quick_api.post("/registry/tools", json={**TOOL, "name": name})
    assert words in answer.json()["detail"]
