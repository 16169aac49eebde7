"""Merging OpenAPI documents."""

from __future__ import annotations

import copy
import json
from typing import Any

from starlette.types import ASGIApp

from mao_gateway.openapi import merge
from tests.shared.service.test_app import make_app

from .conftest import Open

Document = dict[str, Any]
OWN: Document = {"info": {"title": "own"}, "paths": {"/status": {"get": {"operationId": "node.status"}}}}


def document(path: str, operation: str, **schemas: Any) -> Document:
    reference = {"$ref": f"#/components/schemas/{next(iter(schemas))}"} if schemas else {}
    content = {"application/json": {"schema": {"type": "array", "items": reference}}}
    operation_ = {"operationId": operation, "responses": {"200": {"content": content}}}
    return {"paths": {path: {"get": operation_}, "/livez": {}}, "components": {"schemas": schemas}}


def item_schema(merged: Document, path: str) -> str:
    content = merged["paths"][path]["get"]["responses"]["200"]["content"]
    return str(content["application/json"]["schema"]["items"]["$ref"]).rpartition("/")[2]


def test_merge_paths_without_health() -> None:
    merged = merge(OWN, {"registry": document("/tools", "t"), "runner": document("/engine", "e")})
    assert set(merged["paths"]) == {"/status", "/tools", "/engine"}
    assert merged["info"]["title"] == "MAO node"


def test_merge_schemas_renames_clashes() -> None:
    same, other = (
        {"type": "object"},
        {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Run"}}},
    )
    services = {
        "registry": document("/a", "a", Run=same),
        "runner": document("/b", "b", Run=same),
        "scheduler": document("/c", "c", Run=other),
    }
    before = copy.deepcopy(services)
    merged = merge(OWN, services)
    assert (item_schema(merged, "/a"), item_schema(merged, "/b")) == ("Run", "Run")
    assert item_schema(merged, "/c") == "SchedulerRun"
    renamed = merged["components"]["schemas"]["SchedulerRun"]
    assert renamed["properties"]["next"]["$ref"] == "#/components/schemas/SchedulerRun"
    assert services == before


def test_merge_shared_path() -> None:
    theirs = document("/runs/{id}", "get")
    mine: Document = {"paths": {"/runs/{id}": {"post": {"operationId": "post"}}}}
    assert set(merge(OWN, {"a": theirs, "b": mine})["paths"]["/runs/{id}"]) == {"get", "post"}


async def test_openapi_names_missing_services(open_gateway: Open) -> None:
    apps: dict[str, ASGIApp] = {"registry": make_app()}
    async with open_gateway(apps) as client:
        combined = (await client.get("/openapi.json")).json()
        page = await client.get("/docs")
    assert combined["x-mao-missing"] == ["scheduler", "runner", "datamgmt"]
    assert combined["paths"]["/tools/{name}"]["get"]["operationId"] == "tools.get"
    assert "/events" in combined["paths"]
    assert "Problem" in combined["components"]["schemas"]
    assert json.dumps(combined).count("RegistryProblem") == 0
    assert page.status_code == 200


async def test_openapi_complete_document_is_cached(open_gateway: Open) -> None:
    calls = 0
    app = make_app()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await app(scope, receive, send)

    async with open_gateway(
        dict.fromkeys(("registry", "scheduler", "runner", "datamgmt"), counting)
    ) as client:
        first, second = (await client.get("/openapi.json")).json(), (await client.get("/openapi.json")).json()
    assert first == second
    assert "x-mao-missing" not in first
    assert calls == 4
