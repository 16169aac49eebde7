"""Pipelines by their titles, the engine's socket as a privilege, and answers in the original's form."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from mao_shared.web.original import ORIGINAL_TYPE

TOOL = {"name": "crawler", "author": "lab", "image": "lab/crawler:1", "description": "finds charts"}
ORIGINAL = {"User-Agent": "python-requests/2.31.0", "Accept": "*/*"}
STEP = {"name": "acquire", "tool": "crawler", "output_dataset": "charts", "cmd": [], "env": {}}
TITLES = ["Packages only", "Größe/Breite", "🚀 ✓", "y" * 200]


@pytest.fixture
async def registry(quick_api: httpx.AsyncClient) -> httpx.AsyncClient:
    await quick_api.post("/registry/tools", json=TOOL)
    await quick_api.post("/registry/datasets", json={"name": "charts", "master": "/charts.git"})
    return quick_api


async def init(api: httpx.AsyncClient, name: str, **step: Any) -> httpx.Response:
    return await api.post("/pipeline/init", json={"name": name, "steps": [STEP | step]})


@pytest.mark.parametrize("title", TITLES)
async def test_pipeline_found_by_title(registry: httpx.AsyncClient, title: str) -> None:
    made = await init(registry, title)
    assert (made.status_code, made.json()["title"]) == (201, title)
    name, path = made.json()["name"], quote(title, safe="")
    assert made.headers["location"] == f"/registry/pipelines/{name}"
    for where in ("/registry/pipelines/{}", "/enrolments/{}", "/pipeline/{}/diff"):
        by_title, by_name = await registry.get(where.format(path)), await registry.get(where.format(name))
        assert by_title.status_code == 200
        assert by_title.json() == by_name.json()
    changed = made.json() | {"description": "new"}
    assert (await registry.put(f"/registry/pipelines/{path}", json=changed)).json()["description"] == "new"
    assert (await registry.put(f"/enrolments/{path}", json={})).json()["title"] == title
    assert (await registry.delete(f"/enrolments/{path}")).status_code == 204
    assert (await registry.delete(f"/registry/pipelines/{path}")).json()["removed"] == name


async def test_pipeline_title_clash_is_refused(registry: httpx.AsyncClient) -> None:
    await init(registry, "Größe/Breite")
    for other in ("Grösse Breite", "Größe Breite"):
        for answer in (
            await init(registry, other),
            await registry.post("/registry/pipelines", json={"name": other, "steps": [STEP]}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (409, "title-taken")
            assert "'Größe/Breite'" in answer.json()["detail"]
        for method in ("GET", "DELETE"):
            answer = await registry.request(method, f"/registry/pipelines/{other}")
            assert answer.status_code == 404, "another pipeline's name is no way to it"
    kept = {"name": "Grosse-Breite", "steps": [STEP]}
    assert (await registry.put("/registry/pipelines/Grosse-Breite", json=kept)).json()[
        "title"
    ] == "Größe/Breite"
    renamed = kept | {"title": "Grosse Breite"}
    refused = await registry.put("/registry/pipelines/Grosse-Breite", json=renamed)
    assert (refused.status_code, refused.json()["code"]) == (422, "title-mismatch")


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ({"tool": "no-tool"}, "unknown-tool"),
        ({"output_dataset": "no-data", "input_dataset": "no-input"}, "unknown-dataset"),
        ({"tool": "no-tool", "output_dataset": "no-data"}, "unknown-tool"),
    ],
)
async def test_init_names_all_unknown_references(
    registry: httpx.AsyncClient, missing: dict[str, str], code: str
) -> None:
    refused = (await init(registry, "p", **missing)).json()
    assert refused["code"] == code
    assert all(f"'{name}'" in refused["detail"] for name in missing.values())
    errors = refused["errors"]
    assert set(missing.values()) == {*errors["missing_tools"], *errors["missing_datasets"]}
    assert "maoctl" in refused["next"]


async def test_engine_socket_of_step_requires_agreement(registry: httpx.AsyncClient) -> None:
    refused = (await init(registry, "CIPolice Scanner", docker_socket=True)).json()
    assert refused["code"] == "agreement-needed"
    assert "docker socket (root on this host" in refused["detail"]
    assert refused["next"].endswith(
        "maoctl pipeline enrol CIPolice-Scanner --agree 'docker socket' (in the API: the words in 'agree')."
    )
    await registry.post("/registry/pipelines", json={"name": "q", "steps": [STEP | {"docker_socket": "yes"}]})
    assert (await registry.get("/pipeline/q/diff")).json()["agree"] == ["docker socket"]
    assert (await registry.put("/enrolments/q", json={})).status_code == 422
    agreed = (await registry.put("/enrolments/q", json={"agree": ["docker socket"]})).json()
    assert agreed["steps"][0]["privileges"]["docker_socket"] is True
    assert agreed["agreed"] == ["docker socket"]
    other = {"name": "r", "steps": [STEP]}
    await registry.post("/registry/pipelines", json=other)
    plain = (await registry.put("/enrolments/r", json={})).json()
    assert "docker_socket" not in plain["steps"][0]["privileges"]


async def test_engine_socket_of_tool_requires_agreement(registry: httpx.AsyncClient) -> None:
    tool = TOOL | {"name": "scanner", "privileges": {"docker_socket": True}}
    await registry.post("/registry/tools", json=tool)
    refused = await init(registry, "p", tool="scanner")
    assert (refused.status_code, refused.json()["agree"]) == (422, ["docker socket"])


@pytest.mark.parametrize(
    "headers", [ORIGINAL, {"Accept": ORIGINAL_TYPE}, {"Accept": f"text/html, {ORIGINAL_TYPE};q=0.9"}]
)
async def test_original_client_gets_original_form(
    registry: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    await init(registry, "Packages only")
    await registry.post("/registry/pipelines", json={"name": "not-enrolled", "steps": [STEP]})

    async def got(path: str) -> Any:
        answer = await registry.get(path, headers=headers)
        assert answer.headers["vary"] == "Accept, User-Agent"
        return answer.json()

    step = {**STEP, "docker_socket": False, "input_dataset": None}
    assert await got("/registry/tools") == ["crawler"]
    assert await got("/registry/datasets") == ["charts"]
    assert await got("/registry/pipelines") == ["Packages only", "not-enrolled"]
    assert await got("/pipeline") == [{"name": "Packages only", "steps": [step]}]
    assert await got("/registry/pipelines/Packages-only") == [step]
    assert '"image": "lab/crawler:1"' in await got("/registry/tools/crawler")
    assert await got("/registry/datasets/charts") == '{"master": "/charts.git", "nodes": ["node-1"]}'


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"Accept": "*/*", "User-Agent": "curl/8.5"}, ""),
        (ORIGINAL | {"Accept": "application/json"}, ""),
        (ORIGINAL | {"Accept": "text/html, application/json;q=0.5"}, ""),
        (ORIGINAL, "?limit=1"),
    ],
)
async def test_other_clients_get_current_form(
    registry: httpx.AsyncClient, headers: dict[str, str], query: str
) -> None:
    for path in ("/registry/tools", "/registry/datasets", "/registry/pipelines", "/pipeline"):
        answer = await registry.get(path + query, headers=headers)
        assert "items" in answer.json()
        assert answer.headers["vary"] == "Accept, User-Agent"
    assert (
        query or (await registry.get("/registry/tools/crawler", headers=headers)).json()["name"] == "crawler"
    )


async def test_original_lists_are_not_paged(registry: httpx.AsyncClient) -> None:
    for number in range(120):
        await registry.post("/registry/tools", json=TOOL | {"name": f"tool-{number:03}"})
    assert len((await registry.get("/registry/tools", headers=ORIGINAL)).json()) == 121
