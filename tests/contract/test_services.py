"""Properties common to all services, and the paths that each one serves."""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import compile_path

from mao_gateway.routing import ROUTES
from mao_shared.service.app import run_service
from mao_shared.settings import SERVICES, ServiceSettings
from mao_shared.store.memory import MemoryStore

HEALTH = {"/livez", "/readyz", "/conditions", "/metrics"}
METHODS = ("get", "post", "put", "patch", "delete")

CALLS = {
    "registry": """
        POST /registry/tools          GET /registry/tools          GET|PUT|DELETE /registry/tools/{}
        POST /registry/datasets       GET /registry/datasets       GET|PUT|DELETE /registry/datasets/{}
        POST /registry/pipelines      GET /registry/pipelines      GET|PUT|DELETE /registry/pipelines/{}
        GET /registry/nodes           GET|DELETE /registry/nodes/{}
        GET /pipeline                 POST /pipeline/init
        GET /enrolments               GET|PUT|DELETE /enrolments/{}
        POST /store/accept
        GET /catalogue                GET /catalogue/sources       GET /catalogue/{}/{}
        POST /catalogue/inspect       POST /catalogue/plan         POST /catalogue/install
    """,
    "scheduler": """
        POST /pipeline/run            POST /cron/preview
        GET /jobs                     GET|DELETE /jobs/{}
        POST /jobs/{}/pause           POST /jobs/{}/resume
        POST /jobs/{}/backfill        GET /jobs/{}/next
        GET /runs                     GET /runs/{}                 GET /runs/{}/events
        POST /runs/{}/cancel          POST /runs/{}/retry
        POST /runs/{}/reproduce
    """,
    "runner": """
        GET /runs/{}/logs             POST /images/resolve         POST /tools/check         GET /engine
    """,
    "datamgmt": """
        POST /bare-repo/init          GET /datasets                GET|PUT /datasets/{}
        GET /datasets/{}/log          GET /datasets/{}/files       GET /datasets/{}/file
        GET /signers
    """,
    "gateway": "GET /status GET /events",
}


def calls(text: str) -> Iterator[str]:
    words = text.split()
    for methods, path in zip(words[::2], words[1::2], strict=True):
        yield from (f"{method} {path}" for method in methods.split("|"))


def kind_of_settings(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"mao_{service}.settings")
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]
    own = [kind for kind in kinds if issubclass(kind, ServiceSettings)]
    assert len(own) == 1, f"mao_{service}.settings has one class of settings"
    return own[0]


def settings_of(service: str) -> ServiceSettings:
    """Return a service's settings; the gateway has no connections here to identify callers by."""
    return kind_of_settings(service).model_validate({"node": "node-1", "open_to_local_users": True})


@pytest.fixture(params=[*SERVICES, "gateway"])
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache
def app_of(service: str) -> FastAPI:
    """Made once a service, for its OpenAPI document takes long; it is never started."""
    made = importlib.import_module(f"mao_{service}.app").make_app(settings_of(service), store=MemoryStore())
    assert isinstance(made, FastAPI)
    return made


@pytest.fixture
def app(service: str) -> FastAPI:
    return app_of(service)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the app without its lifespan, so that no dependency is needed."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in app.openapi()["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


@pytest.mark.parametrize(
    ("name", "value"), [("MAO_NODE", "a b"), ("MAO_PORT", "many"), ("MAO_LOG_LEVEL", "loud")]
)
def test_services_wrong_settings_are_named(
    service: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    make_app = importlib.import_module(f"mao_{service}.app").make_app
    assert run_service(service, kind_of_settings(service), make_app) == 2
    assert name.removeprefix("MAO_").lower() in capsys.readouterr().err.lower()


async def test_services_lives_and_counts(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json()["status"] == "ok"
    assert "mao_http_request_duration_seconds" in (await client.get("/metrics")).text


async def test_services_unknown_routes_are_problems(client: httpx.AsyncClient) -> None:
    answer = await client.get("/no-such-call", headers={"x-request-id": "req-1"})
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"], problem["request_id"]) == (404, "no-such-route", "req-1")
    assert problem["next"]


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
async def test_services_web_pages_are_kept_out(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get("/docs", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert answer.json()["next"]


async def test_services_have_api_page(client: httpx.AsyncClient) -> None:
    assert "swagger-ui" in (await client.get("/docs")).text
    assert (await client.get("/docs/swagger-ui.css")).status_code == 200


def test_services_every_operation_is_described(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        assert operation.get("summary"), f"{method} {path} has no summary"
        assert re.fullmatch(r"[a-z_-]+\.[a-z_.-]+", operation["operationId"]), f"{method} {path}"
        assert "default" in operation["responses"], f"{method} {path} does not document problems"


def test_services_bodies_have_examples(app: FastAPI) -> None:
    """Each body has an example, or one for every required field; without such fields at least one."""
    schemas = app.openapi()["components"]["schemas"]
    for method, path, operation in operations(app):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "examples" in content:
                continue
            for name in re.findall(r"'#/components/schemas/(\w+)'", str(content["schema"])):
                fields, needed = schemas[name]["properties"], schemas[name].get("required", [])
                shown = {n for n, field in fields.items() if has_example(field)}
                assert shown, f"{method} {path}"
                assert set(needed) <= shown, f"{method} {path}"


def has_example(field: dict[str, Any]) -> bool:
    return "examples" in field or "format" in field or "examples" in field.get("items", {})


def test_services_serve_calls_of_contract(service: str, app: FastAPI) -> None:
    served = {f"{method} {re.sub(r'{[^}]*}', '{}', path)}" for method, path, _ in operations(app)}
    assert set(calls(CALLS[service])) - served == set()


@pytest.mark.parametrize("service", SERVICES)
def test_services_gateway_sends_its_calls_to_it(service: str, app: FastAPI) -> None:
    for method, path, _ in operations(app):
        if path not in HEALTH:
            assert behind(path.replace("{", "").replace("}", "")) == service, f"{method} {path}"


def behind(path: str) -> str | None:
    return next((route.service for route in ROUTES if compile_path(route.path)[0].match(path)), None)


def test_services_operation_ids_are_unique_over_all_services() -> None:
    ids: Counter[str] = Counter()
    for service in SERVICES:
        served = operations(app_of(service))
        ids.update(operation["operationId"] for _, path, operation in served if path not in HEALTH)
    assert [name for name, count in ids.items() if count > 1] == []
