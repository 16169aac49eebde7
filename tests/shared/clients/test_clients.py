"""Clients: exceptions from problem documents, retries, request ids, request bodies."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mao_gateway.proxy import Proxy
from mao_shared import request_context
from mao_shared.clients import DataClient, RunnerClient, SchedulerClient
from mao_shared.clients.gateway import MaoClient, log_text
from mao_shared.clients.responses import KEEPALIVE_SECONDS, ServerEvent, read_events
from mao_shared.errors import (
    AlreadyExists,
    EngineUnavailable,
    InvalidInput,
    MaoError,
    NotFound,
    PeerUnavailable,
    StillReferenced,
    Unauthorized,
)
from mao_shared.models import Dataset, Tool
from mao_shared.models.schedule import CronPreview
from mao_shared.models.tool import CheckRequest
from mao_shared.problems import from_problem, to_problem
from mao_shared.web.limits import ConnectionLimits

URL = "http://127.0.0.1:8083"
STATUS = {
    "name": "d",
    "master": "/srv/d.git",
    "branches": [],
    "unpushed": 0,
    "size": 1,
    "outbox": {"state": "waiting"},
}
IMAGE = {"name": "a:1", "pinned": "a@sha256:00", "platform": "linux/amd64"}
TOOL = Tool(name="crawler", author="Ada", image="lab/crawler:1")


class Script(httpx.MockTransport):
    """A transport that returns (or raises) prepared responses and records the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)
        super().__init__(self._play)

    def _play(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def problem(error: MaoError) -> httpx.Response:
    return httpx.Response(error.status, content=to_problem(error, "r-9").encode())


def refused() -> httpx.ConnectError:
    return httpx.ConnectError("refused")


def answer(document: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=document, headers=headers)


@pytest.mark.parametrize(
    "error",
    [
        NotFound("No such tool.", next="List them.", known=["a"]),
        AlreadyExists("It is there."),
        StillReferenced("In use.", by=["p"]),
        EngineUnavailable("Docker is away."),
        InvalidInput("Bad.", code="image-not-found"),
        Unauthorized("No token."),
    ],
    ids=lambda error: error.code,
)
def test_error_round_trips_over_http(error: MaoError) -> None:
    document = json.loads(to_problem(error, "r-9").encode())
    back = from_problem(error.status, document)
    assert (type(back), back.code, back.detail, back.next) == (
        type(error),
        error.code,
        error.detail,
        error.next,
    )
    assert back.facts == {**error.facts, "request_id": "r-9"}


@pytest.mark.parametrize(
    ("status", "document"),
    [(502, "<html>"), (404, {"detail": "x"}), (500, None), (418, []), (404, {"code": 7})],
)
def test_check_of_an_error_without_a_problem_document(status: int, document: Any) -> None:
    assert isinstance(from_problem(status, document), MaoError)


async def test_service_client_retries_repeatable_calls() -> None:
    script = Script(
        refused(), refused(), answer({"version": "1", "slots": 2, "cpus": 2, "memory": 3, "running": 0})
    )
    async with RunnerClient(URL, transport=script) as client:
        assert (await client.engine()).slots == 2
    assert len(script.requests) == 3


async def test_service_client_sends_other_calls_once() -> None:
    script = Script(httpx.ReadTimeout("late"))
    async with RunnerClient(URL, transport=script) as client:
        with pytest.raises(PeerUnavailable) as raised:
            await client.resolve_image("a:1")
    assert "may have been carried out" in raised.value.detail
    assert "maoctl doctor" in (raised.value.next or "")
    assert raised.value.facts == {"service": "runner"}


async def test_service_client_does_not_retry_refusals() -> None:
    script = Script(problem(NotFound("No.", next="Look.")))
    async with SchedulerClient(URL, transport=script) as client:
        with pytest.raises(NotFound, match="No"):
            await client.run("r")
    assert len(script.requests) == 1


async def test_service_client_forwards_the_request_id() -> None:
    script = Script(answer(IMAGE), answer(STATUS))
    request_context.accept_request_id("req-7")
    async with RunnerClient(URL, transport=script) as runner, DataClient(URL, transport=script) as data:
        assert (await runner.resolve_image("a:1", "never")).pinned == "a@sha256:00"
        assert (await data.ensure_dataset(Dataset(name="d", master="/srv/d.git"))).size == 1
    assert [request.headers["x-request-id"] for request in script.requests] == ["req-7", "req-7"]
    assert json.loads(script.requests[0].content) == {"image": "a:1", "pull": "never"}
    assert (script.requests[1].method, script.requests[1].url.path) == ("PUT", "/datasets/d")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"pinned": 1}'])
async def test_service_client_rejects_unreadable_answers(body: bytes) -> None:
    async with RunnerClient(URL, transport=Script(httpx.Response(200, content=body))) as client:
        with pytest.raises(MaoError) as raised:
            await client.resolve_image("a:1")
    assert raised.value.code == "answer-unreadable"


def test_read_events() -> None:
    lines = [": ping", "", "event: run", "data: a", "data: b", "id: 7", "", "retry: 5", "", "data:c", ""]
    assert list(read_events(lines)) == [ServerEvent("run", "a\nb", "7"), ServerEvent("message", "c", "7")]


@pytest.mark.parametrize(("data", "text"), [('"a\\nb"', "a\nb"), ("plain", "plain"), ("{}", "{}")])
def test_log_text(data: str, text: str) -> None:
    assert log_text(ServerEvent("log", data, None)) == text


def use(*answers: httpx.Response | Exception, token: str | None = None) -> tuple[MaoClient, Script]:
    script = Script(*answers)
    return MaoClient("http://localhost:8080/", token=token, transport=script), script


def test_mao_client_reads_records_with_their_revision() -> None:
    client, script = use(answer(TOOL.model_dump(mode="json"), etag='"12"'), token="t")
    with client:
        found = client.tools.get("crawler")
    assert (found.record, found.revision) == (TOOL, 12)
    assert script.requests[0].headers["authorization"] == "Bearer t"


def test_mao_client_guards_writes() -> None:
    client, script = use(answer(TOOL.model_dump(mode="json")), httpx.Response(204))
    with client:
        client.tools.replace("crawler", TOOL, 12)
        client.tools.delete("a/../b")
    assert script.requests[0].headers["if-match"] == '"12"'
    assert script.requests[1].url.raw_path == b"/registry/tools/a%2F..%2Fb"
    assert "if-match" not in script.requests[1].headers


def test_mao_client_reads_all_pages() -> None:
    page = [TOOL.model_copy(update={"name": name}).model_dump(mode="json") for name in ("a", "b")]
    client, script = use(answer({"items": page[:1], "cursor": "5:a"}), answer({"items": page[1:]}))
    with client:
        assert [tool.name for tool in client.tools.list()] == ["a", "b"]
    assert [request.url.params.get("cursor") for request in script.requests] == [None, "5:a"]


def test_mao_client_error_says_how_to_start_the_node() -> None:
    client, _ = use(refused(), refused(), refused())
    with client, pytest.raises(PeerUnavailable) as raised:
        client.status()
    assert "nothing answers at http://localhost:8080" in raised.value.detail
    assert "make node" in (raised.value.next or "")


def test_mao_client_downloads_a_file() -> None:
    client, script = use(httpx.Response(200, content=b"\x00\x01"), problem(NotFound("No such file.")))
    out = io.BytesIO()
    with client:
        assert client.datasets.download("d", "a b.csv", out, ref="ground-truth") == 2
        with pytest.raises(NotFound):
            client.datasets.download("d", "none", out)
    assert out.getvalue() == b"\x00\x01"
    assert script.requests[0].url.params["path"] == "a b.csv"


def test_mao_client_sends_only_given_fields() -> None:
    client, script = use(answer({"times": []}), answer({"items": []}), answer({}))
    with client:
        client.jobs.preview(CronPreview(cron="@daily"))
        client.external.inspect()
        with contextlib.suppress(MaoError):
            client.federation.create("lab")
    assert [json.loads(request.content) for request in script.requests] == [
        {"cron": "@daily"},
        {},
        {"name": "lab"},
    ]


def test_mao_client_refuses_an_invalid_body() -> None:
    client, script = use()
    with client, pytest.raises(InvalidInput, match="name: invalid name") as raised:
        client.federation.create("a b")
    assert raised.value.code == "invalid-input"
    assert [error["field"] for error in raised.value.facts["errors"]] == ["name"]
    assert script.requests == []


Call = Callable[[MaoClient], Any]
CALLS: dict[str, Call] = {
    "GET /status": lambda c: c.status(),
    "GET /engine": lambda c: c.http.send("GET", "/engine"),
    "POST /pipeline/run": lambda c: c.http.send("POST", "/pipeline/run", json={"name": "p"}),
    "POST /bare-repo/init": lambda c: c.datasets.init_bare_repository("d"),
    "GET /jobs/j/next": lambda c: c.jobs.next_times("j"),
    "POST /cron/preview": lambda c: c.jobs.preview(CronPreview(cron="@daily")),
    "GET /datasets/d": lambda c: c.datasets.status("d"),
    "PUT /enrolments/p": lambda c: c.enrolments.enrol("p", ["host network"]),
    "POST /tools/check": lambda c: c.tools.check(CheckRequest(image="a:1")),
}


@pytest.mark.parametrize("expected", list(CALLS))
def test_mao_client_calls_follow_the_contract(expected: str) -> None:
    client, script = use(answer({}))
    with client, contextlib.suppress(MaoError):  # it is no answer to all of them
        CALLS[expected](client)
    assert f"{script.requests[0].method} {script.requests[0].url.path}" == expected


def test_clients_give_up_idle_connections_before_services_close_them() -> None:
    with MaoClient(URL) as gateway:
        runner, proxy = RunnerClient(URL), Proxy({"runner": URL})
        clients: list[Any] = [gateway.http._http, runner._http, *proxy._clients.values()]
        expiries = [client._transport._pool._keepalive_expiry for client in clients]
    assert expiries == [KEEPALIVE_SECONDS] * 3
    assert max(expiries) < ConnectionLimits().idle - 1
