"""The runner's HTTP API: logs, images, compliance checks, the engine."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import TypeAdapter

from mao_shared.models import Listing, Name, ResolvedImage
from mao_shared.models.log import LogLines
from mao_shared.models.node import EngineInfo
from mao_shared.models.progress import OngoingWork
from mao_shared.models.secret import SecretsRotated, SecretState, SecretValue
from mao_shared.models.tool import CheckReport, CheckRequest, ImageRequest
from mao_shared.web.api_pages import make_routes

from .labels import StepAttempt
from .logs.reader import LogChunk, read_offset
from .runner import Runner

router = APIRouter()
_JSON_TEXT = TypeAdapter(str)

RunId = Annotated[
    str,
    Path(
        alias="id",
        max_length=200,
        description="Id of the run",
        examples=["20260131T120000Z-system-performance-1f3a5c7d"],
    ),
]
StepQuery = Annotated[
    str | None, Query(max_length=64, description="Name or number from 0; default: the latest that ran")
]
SecretName = Annotated[Name, Path(description="Name of the secret", examples=["github-token"])]
AttemptQuery = Annotated[int | None, Query(ge=1, le=1000, description="Default: the latest")]
MAX_LINES = 1000


def get_runner(request: Request) -> Runner:
    """Return the runner of the app that serves this request."""
    runner = request.app.state.runner
    if not isinstance(runner, Runner):
        raise TypeError("the app was not made by make_app")
    return runner


@router.get(
    "/runs/{id}/logs",
    name="runs.logs",
    tags=["runs"],
    summary="The log of a step",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "text/event-stream": {}}}},
)
async def logs(
    request: Request,
    run_id: RunId,
    step: StepQuery = None,
    attempt: AttemptQuery = None,
    follow: Annotated[bool, Query(description="Server-sent events until the step has ended")] = False,
    end: Annotated[int | None, Query(ge=1, le=2**40, description="Only this many bytes at its end")] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=100, description="With `follow`: continue after this event")
    ] = None,
) -> Response:
    """Plain text; or, with `follow`, events. Their data is a JSON string, a part of the log cut anywhere,
    and their id is the byte offset after it. The last event is named `end`."""
    reader = get_runner(request).reader
    key = await reader.find(run_id, step, attempt)
    if follow:
        chunks = reader.follow(key, read_offset(last_event_id))
        headers = {**_attempt_headers(key), "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return EventSourceResponse((encode_chunk(chunk) async for chunk in chunks), headers=headers)
    return StreamingResponse(
        await reader.whole(key, end), media_type="text/plain; charset=utf-8", headers=_attempt_headers(key)
    )


@router.get(
    "/runs/{id}/logs/lines",
    name="runs.log_lines",
    tags=["runs"],
    summary="Numbered lines of the log of a step, or those that contain a text",
)
async def log_lines(
    request: Request,
    run_id: RunId,
    step: StepQuery = None,
    attempt: AttemptQuery = None,
    text: Annotated[
        str | None,
        Query(alias="q", max_length=200, description="Only lines with this text, in upper or lower case"),
    ] = None,
    first: Annotated[
        int | None, Query(alias="from", ge=1, le=2**40, description="Number of the first line")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 300,
) -> LogLines:
    """Without `from` and `q` the last lines. A line is what a terminal shows, at most 2000 bytes."""
    reader = get_runner(request).reader
    return await reader.lines(await reader.find(run_id, step, attempt), text, first, limit)


@router.post(
    "/images/resolve",
    name="images.resolve",
    tags=["images"],
    summary="Pin an image by digest, pulling it if necessary",
)
async def resolve_image(request: Request, body: ImageRequest) -> ResolvedImage:
    pull = OngoingWork(what="pull", subject=body.image[:500], unit="bytes")
    with request.app.state.ongoing.track(pull):
        return await get_runner(request).driver.resolve(body.image, body.pull)


@router.post(
    "/tools/check",
    name="tools.check",
    tags=["tools"],
    summary="Check whether an image complies with the rules for tools",
)
async def check_tool(request: Request, body: CheckRequest) -> CheckReport:
    """Runs the image on a scratch workspace, hardened as in a pipeline, and reports what it did."""
    pull = OngoingWork(what="pull", subject=body.image[:500], unit="bytes")
    with request.app.state.ongoing.track(pull):
        return await get_runner(request).checker.check(body)


@router.get("/secrets", name="secrets.list", tags=["secrets"], summary="List secrets, without their values")
async def list_secrets(request: Request) -> Listing[SecretState]:
    return await get_runner(request).secrets.list_()


@router.get(
    "/secrets/{name}", name="secrets.get", tags=["secrets"], summary="Show a secret, without its value"
)
async def get_secret(request: Request, name: SecretName) -> SecretState:
    return await get_runner(request).secrets.state(name)


@router.put(
    "/secrets/{name}",
    name="secrets.set",
    tags=["secrets"],
    summary="Set a secret",
    responses={201: {"model": SecretState, "description": "It is new"}},
)
async def set_secret(
    request: Request, response: Response, name: SecretName, body: SecretValue
) -> SecretState:
    """Runs that start from now on get this value. No response ever contains it."""
    state, is_new = await get_runner(request).secrets.put(name, body.value)
    response.status_code = 201 if is_new else 200
    return state


@router.delete(
    "/secrets/{name}", name="secrets.remove", tags=["secrets"], summary="Remove a secret", status_code=204
)
async def remove_secret(request: Request, name: SecretName) -> Response:
    await get_runner(request).secrets.remove(name)
    return Response(status_code=204)


@router.post(
    "/secrets/keys/rotate",
    name="secrets.rotate",
    tags=["secrets"],
    summary="Encrypt all secrets with a new key",
)
async def rotate_secrets(request: Request) -> SecretsRotated:
    """The old key is removed. Their values stay as they are."""
    return SecretsRotated(secrets=await get_runner(request).secrets.rotate())


@router.get("/engine", name="engine.get", tags=["engine"], summary="The container engine and its capacity")
async def engine(request: Request) -> EngineInfo:
    runner = get_runner(request)
    capacity = await runner.driver.capacity()
    return EngineInfo(
        version=capacity.version,
        slots=runner.settings.slots,
        cpus=capacity.cpus,
        memory=capacity.memory,
        running=runner.running,
    )


def _attempt_headers(key: StepAttempt) -> dict[str, str]:
    return {"X-Mao-Step": str(key.step), "X-Mao-Attempt": str(key.attempt)}


def encode_chunk(chunk: LogChunk) -> bytes:
    """Encode a chunk as an event, or as a comment if it is empty. JSON keeps every kind of line break."""
    if not chunk.text and not chunk.last:
        return KEEPALIVE_COMMENT
    text = _JSON_TEXT.dump_json(chunk.text).decode()
    data = format_sse_event(data_str=text, id=str(chunk.offset)) if chunk.text else b""
    return data + (format_sse_event(data_str='""', event="end", id=str(chunk.offset)) if chunk.last else b"")


ROUTES = make_routes("runner", [router])
