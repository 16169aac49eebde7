"""`GET /progress/{id}`: what a request waits for in the services behind the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mao_shared.models.progress import OngoingWork
from mao_shared.request_context import numbered_request
from mao_shared.service.app import make_api

from .conftest import Open

PULL = OngoingWork(what="pull", subject="busybox:1.36", done=3, total=10, unit="bytes")
CLONE = OngoingWork(what="clone", subject="data", unit="objects")


@asynccontextmanager
async def no_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def service(name: str) -> FastAPI:
    return make_api(name, "A test.", routes=[], lifespan=no_lifespan, readiness=lambda _: {}, middleware=())


async def test_progress_is_that_of_all_services(open_gateway: Open) -> None:
    runner, data = service("runner"), service("datamgmt")
    async with open_gateway({"runner": runner, "datamgmt": data}) as client:
        with numbered_request() as name, runner.state.ongoing.track(PULL), data.state.ongoing.track(CLONE):
            items = (await client.get(f"/progress/{name}")).json()["items"]
            assert [(item["what"], item["subject"], item["done"]) for item in items] == [
                ("pull", "busybox:1.36", 3),
                ("clone", "data", 0),
            ]
            assert (await client.get("/progress/another")).json()["items"] == []
        assert (await client.get(f"/progress/{name}")).json()["items"] == []


async def test_progress_without_a_service_is_that_of_the_others(open_gateway: Open) -> None:
    data = service("datamgmt")
    async with open_gateway({"datamgmt": data}) as client:
        with numbered_request() as name, data.state.ongoing.track(CLONE):
            answer = await client.get(f"/progress/{name}")
        assert [item["subject"] for item in answer.json()["items"]] == ["data"]
        assert (await client.get("/progress/a%20b")).status_code == 422
