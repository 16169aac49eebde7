"""The common parts of every service, tested on a small app."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from mao_shared import request_context
from mao_shared.clients.services import ServiceClient
from mao_shared.errors import Conflict, StoreUnavailable, Unauthorized
from mao_shared.metrics import metrics_of
from mao_shared.models import PipelineInit, Tool
from mao_shared.service.app import make_api
from mao_shared.web.api_pages import make_routes
from mao_shared.web.dependencies import IfMatch, Paging

JSON = {"content-type": "application/json"}


def toolbox_router() -> APIRouter:
    router = APIRouter(tags=["tools"])

    @router.post("/tools", status_code=201)
    async def create(tool: Tool) -> Tool:
        return tool

    @router.post("/pipeline/init", name="pipeline.init")
    async def init(body: PipelineInit) -> PipelineInit:
        return body

    @router.get("/tools/{name}", name="tools.get")
    async def get(name: str) -> Tool:
        if name == "taken":
            raise Conflict("It is taken.", next="Choose another.", holder={"run": "r-1"}, request_id="forged")
        if name == "secret":
            raise Unauthorized("No token.")
        raise StoreUnavailable("etcd is away.", next="Look at etcd.")

    @router.put("/tools/{name}", name="tools.replace")
    async def replace(name: str, page: Paging, expected: IfMatch) -> dict[str, Any]:
        return {"limit": page.limit, "cursor": page.cursor, "expected": expected}

    @router.get("/broken")
    async def broken() -> dict[str, str]:
        raise RuntimeError("password=hunter2")

    @router.get("/full")
    async def full() -> dict[str, str]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/file")

    router.add_api_route("/known", known)
    return router


async def known() -> dict[str, bool]:
    for minutes in (1, 5):
        request_context.note_stale(datetime.now(UTC) - timedelta(minutes=minutes))
    return {"known": True}


ROUTES = make_routes("toolbox", [toolbox_router()])


@asynccontextmanager
async def no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


async def answers() -> None:
    return None


async def store_is_away() -> None:
    raise StoreUnavailable("etcd is away.")


async def never_answers() -> None:
    await asyncio.Event().wait()


async def raises_something() -> None:
    raise KeyError("internals")


def make_app(**probes: Any) -> FastAPI:
    return make_api("toolbox", "A test.", routes=ROUTES, lifespan=no_lifespan, readiness=lambda _: probes)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://toolbox")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(make_app()) as client:
        yield client


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = dict(answer.json())
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["detail"]
    assert problem["next"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{nope", JSON),
        (b"\xff\xfe{}", JSON),
        (b"[" * 100_000, JSON),
        (b"", JSON),
        (b'{"name": "a"}', {}),
        (b'{"name": "a"}', {"content-type": "application/x-www-form-urlencoded"}),
    ],
    ids=["broken", "not-utf8", "too-deep", "empty", "no-type", "form"],
)
async def test_api_body_that_is_not_json(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> None:
    answer = await client.post("/tools", content=body, headers=headers)
    problem = check_problem(answer, 400, "body-not-json")
    assert "application/json" in problem["next"]


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_api_body_of_several_shapes_that_came_as_something_else(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    body = b'{"tool": "a", "dataset": "b"}'
    answer = await client.post("/pipeline/init", content=body, headers=headers)
    problem = check_problem(answer, 400, "body-not-json")
    assert "application/json" in problem["next"]


async def test_api_disk_that_takes_nothing_is_said_with_the_path(client: httpx.AsyncClient) -> None:
    problem = check_problem(await client.get("/full"), 503, "data-dir-unusable")
    assert "/data/file: No space left on device" in problem["detail"]
    assert "MAO_DATA_DIR" in problem["next"]


async def test_api_wrong_fields_are_named_in_plain_words(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tools", json={"name": "a/b", "colour": 1})
    problem = check_problem(answer, 422, "invalid-input")
    errors = {error["field"]: error["message"] for error in problem["errors"]}
    assert problem["detail"].startswith("name: ")
    assert "1 to 63 letters" in problem["detail"]
    assert errors["image"] == "is missing"
    assert errors["colour"] == "is not a known field"


async def test_api_wrong_field_deep_inside(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pipeline/init", json={"name": "p", "steps": [{"tool": "t"}]})
    assert check_problem(answer, 422, "invalid-input")["detail"] == "steps[0].dataset: is missing"


async def test_api_rule_over_several_fields_is_told_as_it_is(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pipeline/init", json={"tool": "t"})
    assert 'send {"tool", "dataset"}' in check_problem(answer, 422, "invalid-input")["detail"]


@pytest.mark.parametrize("body", [b'{"\\ud800": 1, "name": "\\ud800"}', b"[1]", b"null", b"NaN", b"1e999"])
async def test_api_strange_json_is_never_a_500(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/tools", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert answer.json()["next"]


async def test_api_body_over_the_limit_is_refused_unread(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tools", json={"name": "a" * (1 << 20)})
    check_problem(answer, 413, "body-too-large")


async def test_api_body_of_unknown_length_over_the_limit(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    answer = await client.post("/tools", content=endless(), headers=JSON)
    check_problem(answer, 413, "body-too-large")


async def test_api_unknown_routes_and_methods(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/nowhere"), 404, "no-such-route")
    check_problem(await client.get("/tools/a/"), 404, "no-such-route")
    answer = await client.delete("/tools/a")
    assert check_problem(answer, 405, "method-not-allowed")["allowed"] == ["GET", "PUT"]
    assert answer.headers["allow"] == "GET, PUT"


async def test_api_our_errors_keep_their_facts(client: httpx.AsyncClient) -> None:
    problem = check_problem(await client.get("/tools/taken"), 409, "conflict")
    assert problem["holder"] == {"run": "r-1"}


async def test_api_outage_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/tools/any")
    check_problem(answer, 503, "store-unavailable")
    assert answer.headers["retry-after"] == "2"


async def test_api_missing_token_is_asked_for(client: httpx.AsyncClient) -> None:
    assert (await client.get("/tools/secret")).headers["www-authenticate"].startswith("Bearer")


async def test_api_unexpected_tells_no_internals(
    client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await client.get("/broken")
    problem = check_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
    assert problem["request_id"] in problem["next"]


async def test_api_request_ids_are_kept_when_sane(client: httpx.AsyncClient) -> None:
    kept = await client.get("/livez", headers={"x-request-id": "req-1"})
    made = await client.get("/livez", headers={"x-request-id": "forged\tline"})
    assert kept.headers["x-request-id"] == "req-1"
    assert len(made.headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("sent", "expected"), [(None, None), ('"123"', 123), ('W/"7"', 7), ("*", -1), (' "9" ', 9)]
)
async def test_api_if_match(client: httpx.AsyncClient, sent: str | None, expected: int | None) -> None:
    headers = {} if sent is None else {"if-match": sent}
    answer = await client.put("/tools/a?limit=5&cursor=x", headers=headers)
    assert answer.json() == {"limit": 5, "cursor": "x", "expected": expected}


@pytest.mark.parametrize("sent", ["123", '"abc"', '"1", "2"', '"99999999999999999999"'])
async def test_api_if_match_that_is_none_of_ours(client: httpx.AsyncClient, sent: str) -> None:
    check_problem(await client.put("/tools/a", headers={"if-match": sent}), 422, "if-match-invalid")


@pytest.mark.parametrize("limit", ["0", "1001", "many", ""])
async def test_api_paging_limits(client: httpx.AsyncClient, limit: str) -> None:
    answer = await client.put(f"/tools/a?limit={limit}")
    assert check_problem(answer, 422, "invalid-input")["detail"].startswith("limit: ")


async def test_api_ready_when_all_probes_answer() -> None:
    async with client_of(make_app(store=answers, engine=answers)) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"store": "ok", "engine": "ok"}


async def test_api_readiness_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(store=store_is_away, engine=never_answers, odd=raises_something, fine=answers)
    monkeypatch.setattr("mao_shared.web.health.PROBE_TIMEOUT", 0.05)
    async with client_of(app) as client:
        answer = await client.get("/readyz")
        assert (await client.get("/livez")).status_code == 200
    assert check_problem(answer, 503, "not-ready")["checks"] == {
        "store": "etcd is away.",
        "engine": "no answer within 0.05 s",
        "odd": "does not work (KeyError)",
        "fine": "ok",
    }


async def test_api_metrics_count_by_template_and_are_the_apps_own() -> None:
    app, other = make_app(), make_app()
    metrics_of(app).counter("mao_test_total", "A test", ["kind"]).labels("x").inc()
    async with client_of(app) as client:
        await client.get("/tools/one")
        await client.get("/tools/two")
        await client.get("/no-such/route-1")
        text = (await client.get("/metrics")).text
    assert (
        'mao_http_request_duration_seconds_count{method="GET",route="/tools/{name}",status="503"} 2.0' in text
    )
    assert 'route="(none)",status="404"' in text
    assert 'mao_test_total{kind="x"} 1.0' in text
    assert b"mao_test_total" not in metrics_of(other).render()


async def test_api_page_needs_no_internet(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"docs/{asset}" in page
        assert len((await client.get(f"/docs/{asset}")).content) > 1000


async def test_api_operations_have_stable_ids_and_document_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    create = document["paths"]["/tools"]["post"]
    assert create["operationId"] == "tools.create"
    assert document["paths"]["/tools/{name}"]["get"]["operationId"] == "tools.get"
    assert "application/problem+json" in create["responses"]["default"]["content"]
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]


async def test_api_answer_from_copies_tells_the_age_of_the_oldest(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/known")).headers
    assert 299 <= int(headers["age"]) <= 302
    assert headers["warning"] == '110 - "Response is Stale"'
    as_of = request_context.parse_as_of(headers["x-mao-as-of"])
    assert as_of is not None
    assert 299 <= (datetime.now(UTC) - as_of).total_seconds() <= 302
    assert "age" not in (await client.get("/openapi.json")).headers


async def test_api_what_another_service_has_from_copies_is_passed_on() -> None:
    transport = httpx.ASGITransport(make_app())
    with request_context.track_staleness() as moments:
        async with ServiceClient("http://localhost", transport=transport) as other:
            await other.response("GET", "/known")
    assert len(moments) == 1


@pytest.mark.parametrize("text", [None, "", "soon", "2026-11-24T12:00:00"])
def test_api_age_that_cannot_be_read_is_none(text: str | None) -> None:
    assert request_context.parse_as_of(text) is None
