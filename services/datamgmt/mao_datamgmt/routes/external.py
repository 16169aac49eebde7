"""`/write`, `/read` and `/inspect`, the HTTP API for external programs, and `/remotes/check`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from mao_datamgmt.datasets.clones import check_remote
from mao_datamgmt.external import insights
from mao_shared.json_text import RawJson, comparable_json
from mao_shared.models import Listing
from mao_shared.models.external import (
    ExternalState,
    ExternalWrite,
    Insight,
    InsightQuery,
    Receipt,
    RemoteCheck,
    RemoteState,
)
from mao_shared.store import Stored
from mao_shared.web.dependencies import Attempt, IdempotencyKey, once
from mao_shared.web.json_bodies import VerbatimRoute

from .datasets import DatasetName, TheManager

router = APIRouter(tags=["external data"])
verbatim = APIRouter(tags=["external data"], route_class=VerbatimRoute)


@verbatim.post(
    "/write",
    name="external.write",
    summary="Accept a value of an external program; it is committed to the dataset that declares the key",
    status_code=202,
)
async def write(
    manager: TheManager,
    body: Annotated[
        ExternalWrite,
        Body(openapi_examples={"reading": {"value": {"key": "temperature", "value": {"celsius": 21.5}}}}),
    ],
    key: IdempotencyKey = None,
) -> Receipt:
    """The response is sent when the value is on the node's disk, where no crash loses it.

    Its text is committed as it was sent, on one line: 1.10 and 1e500 are kept.
    """

    async def make(attempt: Attempt) -> Stored[Receipt]:
        return Stored(await manager.ingest.take(body, attempt), 0)

    node, clock = manager.context.node, manager.context.clock
    comparable = body  # compared to detect repetitions: the order of names matters, white space does not
    if isinstance(body.value, RawJson):
        comparable = body.model_copy(update={"value": comparable_json(body.value)})
    return (await once(manager.own, node, "external.write", key, comparable, Receipt, make, clock)).record


@router.post(
    "/read",
    name="insights.read",
    summary="Read the insights.json of a tool",
    response_model=Insight,
)
async def read(
    manager: TheManager,
    body: Annotated[
        InsightQuery,
        Body(
            openapi_examples={
                "of a tool on this node": {"value": {"key": "system-performance"}},
                "on another node": {"value": {"key": "system-performance/node-2"}},
            }
        ),
    ],
) -> Response:
    name, branch = insights.parse_key(body.key or body.dataset or "")
    if name is None:
        raise insights.key_missing()
    sources = insights.select_sources(name, await manager.sources(), body.dataset)
    found = await manager.query(insights.read, sources, branch, body.key or name)
    return _json_response(insights.as_json(found))


@router.post(
    "/inspect",
    name="insights.list",
    summary="List the insights.json of tools, on all nodes",
    response_model=Listing[Insight],
)
async def inspect(
    manager: TheManager,
    body: Annotated[
        InsightQuery,
        Body(openapi_examples={"all": {"value": {}}, "of a tool": {"value": {"key": "system-performance"}}}),
    ],
) -> Response:
    name, branch = insights.parse_key(body.key or "")
    sources = insights.select_sources(name, await manager.sources(), body.dataset)
    found = await manager.query(insights.inspect, sources, branch)
    return _json_response(f'{{"items":[{",".join(map(insights.as_json, found))}],"cursor":null}}')


def _json_response(text: str) -> Response:
    return Response(text, media_type="application/json")


@router.get(
    "/datasets/{name}/external",
    name="datasets.external",
    summary="Show the keys of external programs, and the values not committed yet",
)
async def state(manager: TheManager, name: DatasetName) -> ExternalState:
    return await manager.ingest.state(name)


@router.post(
    "/remotes/check", name="remotes.check", summary="Check that a repository can be a dataset's remote"
)
async def check(
    manager: TheManager,
    body: Annotated[
        RemoteCheck,
        Body(openapi_examples={"ssh": {"value": {"master": "git@git.example.org:mao/performance.git"}}}),
    ],
) -> RemoteState:
    return await manager.query(check_remote, body.master)
