"""Keys of the forms that create something: sent twice, a form creates one."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mao_gateway.pages.forms import KEY_FIELD, key_of, new_key
from mao_gateway.pages.site import environment
from mao_shared.errors import InvalidInput

from .conftest import Open

RUN = "20260131T120000Z-p-1f3a5c7d"
CREATED = {
    "id": RUN,
    "pipeline": "p",
    "node": "n",
    "trigger": "manual",
    "created_at": "2026-01-31T12:00:00Z",
}
REPOSITORY = {"name": "d", "master": "/d.git"}
FORMS = [
    ("/ui/pipelines/p/run", {}),
    (f"/ui/runs/{RUN}/retry", {}),
    (f"/ui/runs/{RUN}/reproduce", {"step": "crawler"}),
    ("/ui/welcome/start", {"pipeline": "p", "do": "once"}),
    ("/ui/welcome/tool", {"name": "t", "image": "i", "unchecked": "yes"}),
    ("/ui/welcome/dataset", {"name": "d"}),
]


def recorder(seen: list[str | None]) -> FastAPI:
    """Return a service that accepts every call, and notes the Idempotency-Key of each POST."""
    app = FastAPI()

    @app.post("/{path:path}")
    async def accept(path: str, request: Request) -> Any:
        seen.append(request.headers.get("idempotency-key"))
        return JSONResponse(REPOSITORY if path == "bare-repo/init" else CREATED, 201)

    return app


async def post(client: httpx.AsyncClient, path: str, fields: dict[str, str]) -> httpx.Response:
    return await client.post(path, data=fields, follow_redirects=False)


@pytest.mark.parametrize(("path", "fields"), FORMS)
async def test_form_key_is_sent_to_the_api(open_gateway: Open, path: str, fields: dict[str, str]) -> None:
    seen: list[str | None] = []
    service = recorder(seen)
    key = new_key()
    async with open_gateway(dict.fromkeys(("scheduler", "registry", "datamgmt"), service)) as client:
        answer = await post(client, path, fields | {KEY_FIELD: key})
        with_key, seen[:] = list(seen), []
        await post(client, path, fields)
    assert answer.status_code == 303
    assert with_key
    assert set(with_key) == {key}
    assert set(seen) == {None}


@pytest.mark.parametrize(("path", "fields"), FORMS)
@pytest.mark.parametrize("key", ["\u00e9", "a b", "x" * 65, "a\r\nb", "<script>"])
async def test_form_key_of_no_page_is_refused(
    open_gateway: Open, path: str, fields: dict[str, str], key: str
) -> None:
    seen: list[str | None] = []
    service = recorder(seen)
    async with open_gateway(dict.fromkeys(("scheduler", "registry", "datamgmt"), service)) as client:
        answer = await post(client, path, fields | {KEY_FIELD: key})
    assert answer.status_code in (303, 422)
    assert seen == []


def test_key_of_form() -> None:
    key = new_key()
    assert key_of({KEY_FIELD: key}) == key
    assert key_of({}) is None
    with pytest.raises(InvalidInput):
        key_of({KEY_FIELD: "no key"})


def test_form_macro_makes_a_new_key_each_time() -> None:
    template = environment().from_string('{% from "parts.html" import once %}{{ once() }}{{ once() }}')
    found = re.findall(rf'name="{KEY_FIELD}" value="([^"]+)"', template.render())
    assert len(found) == len(set(found)) == 2
    assert all(key_of({KEY_FIELD: key}) == key for key in found)
