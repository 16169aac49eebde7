"""Ambiguous JSON bodies, and bodies that no record can hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from mao_shared.models import Tool
from mao_shared.models.common import MAX_ENV, STORED
from mao_shared.service.app import make_api
from mao_shared.web.api_pages import make_routes
from mao_shared.web.json_bodies import MAX_DEPTH, JsonFault, find_fault

GOOD = [
    b"{}",
    b"[1, 2.5, -0.0, 1e300, null, true]",
    '{"name": "Zürich 😀", "a": {"a": {"a": 1}}}'.encode(),
    b'{"pair": "\\ud83d\\ude00", "tab": "\\t"}',
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    b"1" * 400,
    json.dumps([0] * 100_000).encode(),
]
NO_JSON = {
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"name": "a"}'.encode("utf-16-le"),
    "Latin-1": '{"name": "Zürich"}'.encode("latin-1"),
    "overlong": b'{"name": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "cut short": b'{"name": "a',
    "two documents": b"{}{}",
    "control character": b'{"name": "a\nb"}',
    "single quotes": b"{'name': 'a'}",
    "comma at the end": b'{"name": "a",}',
    "one level too deep": b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
    "objects ten thousand deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "open arrays ten thousand deep": b"[" * 10_000,
}
WRONG = [
    (b'{"name": "a", "name": "b"}', "name", "occurs twice"),
    (b'{"name": "a", "\\u006eame": "b"}', "name", "occurs twice"),
    (b'{"steps": [{}, {"env": {"A": "1", "B": "2", "A": "3"}}]}', "steps[1].env.A", "occurs twice"),
    (b'[{"a": {"b": 1, "b": 1}}]', "[0].a.b", "occurs twice"),
    (b'{"limits": {"cpu": NaN}}', "limits.cpu", "is NaN"),
    (b'{"a": [1, -Infinity]}', "a[1]", "is -Infinity"),
    (b"Infinity", "body", "is Infinity"),
    (b'{"a": 1e400}', "a", "too large a number"),
    (b'{"a": {"b": ' + b"9" * 5000 + b"}}", "a.b", "has 5000 digits"),
    (b'{"a": -' + b"9" * 500_000 + b"}", "a", "digits"),
    (b'{"a": "\\ud800"}', "a", "a lone surrogate"),
    (b'{"a": ["x", "\\udc00\\ud800"]}', "a[1]", "a lone surrogate"),
    (b'{"a": {"\\udfff": 1}}', "a", "a name in it has a lone surrogate"),
    (b'{"a": "b\\u0000"}', "a", "NUL"),
    ('{"a": "ü\\u0000"}'.encode(), "a", "NUL"),
    (b'{"\\u0000": 1}', "body", "a name in it has a NUL"),
]


@pytest.mark.parametrize("body", GOOD, ids=range(len(GOOD)))
def test_find_fault_none(body: bytes) -> None:
    assert find_fault(body) is None


@pytest.mark.parametrize("case", NO_JSON)
def test_find_fault_no_json(case: str) -> None:
    fault = find_fault(NO_JSON[case])
    assert fault is not None
    assert fault.field == ""
    assert fault.problem().status == 400


@pytest.mark.parametrize(("body", "field", "message"), WRONG, ids=range(len(WRONG)))
def test_find_fault_names_the_field(body: bytes, field: str, message: str) -> None:
    fault = find_fault(body)
    assert isinstance(fault, JsonFault)
    assert fault.field == field
    assert message in fault.message
    assert fault.problem().status == 422


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()

    @router.put("/any")
    @router.post("/any")
    @router.patch("/any")
    async def take(body: dict[str, Any]) -> int:
        return len(body)

    @router.post("/tools")
    async def tool(body: Tool) -> str:
        return body.name

    routes = make_routes("toolbox", [router])
    app = make_api("toolbox", "A test.", routes=routes, lifespan=_no_lifespan, readiness=lambda _: {})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"]
)
async def test_json_bodies_every_route_refuses_equal_keys(
    client: httpx.AsyncClient, method: str, kind: str
) -> None:
    headers = {"content-type": kind}
    answer = await client.request(method, "/any", content=b'{"a": {"b": 1, "b": 2}}', headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "a.b")
    answer = await client.request(method, "/any", content=b'{"a": {"b": 1, "c": 2}}', headers=headers)
    assert (answer.status_code, answer.json()) == (200, 1)


async def test_json_bodies_large_body_is_read_beside_the_event_loop(client: httpx.AsyncClient) -> None:
    many = {f"k{number}": number for number in range(50_000)}
    assert (await client.post("/any", json=many)).json() == 50_000
    twice = json.dumps(many).removesuffix("}") + ', "k7": 1}'
    answer = await client.post("/any", content=twice, headers={"content-type": "application/json"})
    assert answer.json()["errors"] == [{"field": "k7", "message": "occurs twice"}]


@pytest.mark.parametrize("count", [MAX_ENV + 1, 50_000])
async def test_json_bodies_env_variables_beyond_their_number(client: httpx.AsyncClient, count: int) -> None:
    env = {f"V{number}": "1" for number in range(count)}
    answer = await client.post("/tools", json={"name": "a", "image": "busybox", "env": env})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "env")
    assert str(count) in answer.json()["detail"]


def test_json_bodies_env_of_a_record_of_an_older_version_is_read() -> None:
    env = {f"V{number}": "1" for number in range(MAX_ENV + 1)}
    assert (
        len(Tool.model_validate({"name": "a", "image": "busybox", "env": env}, context=STORED).env) > MAX_ENV
    )


async def test_json_bodies_wrong_fields_by_the_thousand_are_not_all_listed(client: httpx.AsyncClient) -> None:
    strange = {f"k{number}": 1 for number in range(20_000)}
    answer = await client.post("/tools", json=strange)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 100)
