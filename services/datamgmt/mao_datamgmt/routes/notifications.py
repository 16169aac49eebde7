"""`/channels`, `/rules`, `/heartbeats` and `/messages`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.models import Listing, Name
from mao_shared.models.notification import (
    ChannelRequest,
    ChannelState,
    HeartbeatRequest,
    HeartbeatState,
    Message,
    Rule,
    SendResult,
    UrlComparison,
    UrlToCompare,
)
from mao_shared.web.dependencies import Paging

from .datasets import TheManager

router = APIRouter(tags=["notifications"])

ChannelName = Annotated[Name, Path(description="Name of the channel", examples=["mail"])]
RuleName = Annotated[Name, Path(description="Name of the rule", examples=["night"])]
PipelineName = Annotated[Name, Path(description="Name of the pipeline")]


@router.get("/channels", name="channels.list", summary="List channels with their pending messages")
async def list_channels(manager: TheManager) -> Listing[ChannelState]:
    return await manager.notifications.channels.list_()


@router.post("/channels", name="channels.add", summary="Add a channel to tell people by", status_code=201)
async def add_channel(manager: TheManager, body: ChannelRequest) -> ChannelState:
    return await manager.notifications.channels.add(body)


@router.get("/channels/{name}", name="channels.get", summary="Show a channel with its pending messages")
async def get_channel(manager: TheManager, name: ChannelName) -> ChannelState:
    return await manager.notifications.channels.state(name)


@router.put("/channels/{name}", name="channels.put", summary="Add a channel, or change its URL")
async def put_channel(manager: TheManager, name: ChannelName, body: ChannelRequest) -> ChannelState:
    if body.name != name:
        raise InvalidInput(
            f"The body names the channel {body.name!r}, the path {name!r}.", next="Use the same name in both."
        )
    return await manager.notifications.channels.put(body)


@router.post(
    "/channels/{name}/compare", name="channels.compare", summary="Whether a URL is that of the channel"
)
async def compare_channel(manager: TheManager, name: ChannelName, body: UrlToCompare) -> UrlComparison:
    return UrlComparison(same=await manager.notifications.channels.has_url(name, body.url))


@router.delete("/channels/{name}", name="channels.remove", summary="Remove a channel", status_code=204)
async def remove_channel(manager: TheManager, name: ChannelName) -> Response:
    await manager.notifications.channels.remove(name)
    return Response(status_code=204)


@router.post("/channels/{name}/test", name="channels.test", summary="Send a test message to a channel now")
async def test_channel(manager: TheManager, name: ChannelName) -> SendResult:
    try:
        error = await manager.notifications.channels.test(name)
    except MaoError as failure:
        error = _reason(failure)
    return SendResult(delivered=error is None, error=error)


@router.get("/rules", name="rules.list", summary="List the rules for alarms")
async def list_rules(manager: TheManager) -> Listing[Rule]:
    return await manager.notifications.rules.list_()


@router.post("/rules", name="rules.add", summary="Add a rule for alarms", status_code=201)
async def add_rule(manager: TheManager, body: Rule) -> Rule:
    return await manager.notifications.rules.add(body)


@router.get("/rules/{name}", name="rules.get", summary="Show a rule for alarms")
async def get_rule(manager: TheManager, name: RuleName) -> Rule:
    return await manager.notifications.rules.get(name)


@router.put("/rules/{name}", name="rules.put", summary="Add or replace a rule for alarms")
async def put_rule(manager: TheManager, name: RuleName, body: Rule) -> Rule:
    if body.name != name:
        raise InvalidInput(
            f"The body names the rule {body.name!r}, the path {name!r}.", next="Use the same name in both."
        )
    return await manager.notifications.rules.put(body)


@router.delete("/rules/{name}", name="rules.remove", summary="Remove a rule for alarms", status_code=204)
async def remove_rule(manager: TheManager, name: RuleName) -> Response:
    await manager.notifications.rules.remove(name)
    return Response(status_code=204)


@router.get("/heartbeats", name="heartbeats.list", summary="List the heartbeats with their newest pings")
async def list_heartbeats(manager: TheManager) -> Listing[HeartbeatState]:
    return await manager.notifications.heartbeats.list_()


@router.get("/heartbeats/{pipeline}", name="heartbeats.get", summary="Show the heartbeat of a pipeline")
async def get_heartbeat(manager: TheManager, pipeline: PipelineName) -> HeartbeatState:
    return await manager.notifications.heartbeats.state(pipeline)


@router.put("/heartbeats/{pipeline}", name="heartbeats.put", summary="Set the address pinged about runs")
async def put_heartbeat(
    manager: TheManager, pipeline: PipelineName, body: HeartbeatRequest
) -> HeartbeatState:
    return await manager.notifications.heartbeats.put(pipeline, body.url)


@router.post(
    "/heartbeats/{pipeline}/compare",
    name="heartbeats.compare",
    summary="Whether an address is that of the heartbeat",
)
async def compare_heartbeat(manager: TheManager, pipeline: PipelineName, body: UrlToCompare) -> UrlComparison:
    return UrlComparison(same=await manager.notifications.heartbeats.has_url(pipeline, body.url))


@router.delete(
    "/heartbeats/{pipeline}", name="heartbeats.remove", summary="Remove a heartbeat", status_code=204
)
async def remove_heartbeat(manager: TheManager, pipeline: PipelineName) -> Response:
    await manager.notifications.heartbeats.remove(pipeline)
    return Response(status_code=204)


@router.post("/heartbeats/{pipeline}/test", name="heartbeats.test", summary="Ping a heartbeat's address now")
async def test_heartbeat(manager: TheManager, pipeline: PipelineName) -> SendResult:
    try:
        error = await manager.notifications.heartbeats.test(pipeline)
    except MaoError as failure:
        error = _reason(failure)
    return SendResult(delivered=error is None, error=error)


@router.get("/messages", name="messages.list", summary="List the messages to channels, and the pings")
async def list_messages(
    manager: TheManager,
    page: Paging,
    channel: Annotated[Name | None, Query(description="Only those to this channel or heartbeat")] = None,
    about: Annotated[
        str | None, Query(max_length=300, description="Only those about this alarm or run")
    ] = None,
    waiting: Annotated[bool, Query(description="Only those that are neither delivered nor given up")] = False,
) -> Listing[Message]:
    return await manager.notifications.channels.list_messages(
        channel, about, page.limit, page.cursor, waiting=waiting
    )


def _reason(failure: MaoError) -> str:
    """Return why nothing could be sent; raises what is wrong with the request."""
    if isinstance(failure, NotFound):
        raise failure
    return failure.detail
