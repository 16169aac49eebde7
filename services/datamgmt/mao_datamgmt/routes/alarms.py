"""`/alarms`, `/series` and `/webhooks`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from mao_datamgmt.monitoring.alarms import AlarmFilter, AlarmStateFilter
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Alarm, Listing, Name, Series, WebhookRequest, WebhookState
from mao_shared.models.alarm import AcknowledgeBody, WebhookTest
from mao_shared.models.common import unreadable_items
from mao_shared.web.dependencies import Paging

from .datasets import TheManager

router = APIRouter(tags=["alarms"])

AlarmId = Annotated[str, Path(max_length=300, description="Id of the alarm")]
HookName = Annotated[Name, Path(description="Name of the webhook", examples=["lab-chat"])]


@router.get("/alarms", name="alarms.list", summary="List alarms; with open=true only those not acknowledged")
async def list_alarms(
    manager: TheManager,
    page: Paging,
    open_only: Annotated[bool, Query(alias="open", description="Only unacknowledged ones")] = False,
    newest: Annotated[
        bool, Query(description="The last raised first, as with any filter; otherwise by id")
    ] = False,
    state: Annotated[
        AlarmStateFilter | None, Query(description="open: neither acknowledged nor over; closed: the others")
    ] = None,
    kind: Annotated[str | None, Query(max_length=63, description="Only those of this kind")] = None,
    about: Annotated[
        str | None, Query(max_length=500, description="Only those of this pipeline, dataset or subject")
    ] = None,
) -> Listing[Alarm]:
    wanted = AlarmFilter(state, kind, about, unacknowledged=open_only)
    if newest or wanted != AlarmFilter(unacknowledged=open_only):
        return await manager.alarms.newest(wanted, page.limit, page.cursor)
    return await manager.alarms.list_(open_only, page.limit, page.cursor)


@router.get("/alarms/{alarm_id}", name="alarms.get", summary="Show an alarm")
async def get_alarm(manager: TheManager, alarm_id: AlarmId) -> Alarm:
    return (await manager.alarms.get(alarm_id)).record


@router.post("/alarms/{alarm_id}/acknowledge", name="alarms.acknowledge", summary="Acknowledge an alarm")
async def acknowledge(manager: TheManager, alarm_id: AlarmId, body: AcknowledgeBody) -> Alarm:
    return await manager.alarms.acknowledge(alarm_id, body.by, body.note)


@router.get("/series", name="series.list", summary="List the control metrics with their newest points")
async def list_series(
    manager: TheManager,
    points: Annotated[int, Query(ge=1, le=100, description="How many of the newest points")] = 1,
) -> Listing[Series]:
    page = await manager.series.page()
    return Listing(
        items=[
            stored.record.model_copy(update={"points": stored.record.points[-points:]})
            for stored in page.items
        ],
        unreadable=unreadable_items(page.unreadable),
    )


@router.get(
    "/series/{pipeline}/{step}/{metric}", name="series.get", summary="Show the newest points of a metric"
)
async def get_series(manager: TheManager, pipeline: Name, step: Name, metric: Name) -> Series:
    stored = await manager.series.get(f"{pipeline}/{step}/{metric}")
    if stored is None:
        raise NotFound(
            f"The metric {metric!r} of step {step!r} of pipeline {pipeline!r} has no value yet.",
            code="series-not-found",
            next="List them: maoctl series get",
        )
    return stored.record


@router.get("/webhooks", name="webhooks.list", summary="List webhooks with their pending deliveries")
async def list_webhooks(manager: TheManager) -> Listing[WebhookState]:
    return await manager.webhooks.list_()


@router.post("/webhooks", name="webhooks.add", summary="Add a webhook to send alarms to", status_code=201)
async def add_webhook(manager: TheManager, body: WebhookRequest) -> WebhookState:
    return await manager.webhooks.add(body)


@router.get("/webhooks/{name}", name="webhooks.get", summary="Show a webhook with its pending deliveries")
async def get_webhook(manager: TheManager, name: HookName) -> WebhookState:
    return await manager.webhooks.state(name)


@router.delete("/webhooks/{name}", name="webhooks.remove", summary="Remove a webhook", status_code=204)
async def remove_webhook(manager: TheManager, name: HookName) -> Response:
    await manager.webhooks.remove(name)
    return Response(status_code=204)


@router.post("/webhooks/{name}/test", name="webhooks.test", summary="Send a test message to a webhook now")
async def test_webhook(manager: TheManager, name: HookName) -> WebhookTest:
    try:
        error = await manager.webhooks.test(name)
    except MaoError as failure:
        if isinstance(failure, NotFound):
            raise
        error = failure.detail
    return WebhookTest(delivered=error is None, error=error)
