"""*Alarms*: what is open, what was acknowledged or is over, and who is told of it.

URLs of channels and heartbeats are secrets: they are typed as passwords and never shown, also not in a form
that is shown again after an error. The secret of a new webhook is on the page that answers the form, and on
no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse, Response

from mao_gateway.audit_calls import ACTOR_KEY
from mao_gateway.pages.forms import Message as FormMessage
from mao_gateway.pages.forms import back_to, carry_out, read_form
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.models import Alarm, Listing
from mao_shared.models.alarm import WebhookState
from mao_shared.models.notification import ChannelState, HeartbeatState, Message, Rule, SendResult

from .views import KINDS, channel_row, closed_row, heartbeat_row, open_row, read_rule, rule_row, waiting_row

router = page_router()

HERE = "/ui/alarms"
MAX_OPEN = 50
CLOSED_ON_PAGE = 25
MAX_MESSAGES = 25
KindQuery = Annotated[str, Query(alias="kind", max_length=63)]
AboutQuery = Annotated[str, Query(alias="of", max_length=500)]
CursorQuery = Annotated[str | None, Query(max_length=1000)]


@router.get(HERE)
async def show_alarms(
    page: PageDep, kind: KindQuery = "", of: AboutQuery = "", cursor: CursorQuery = None
) -> HTMLResponse:
    return await _render(page, kind, of.strip(), cursor)


async def _render(
    page: Page, kind: str = "", of: str = "", cursor: str | None = None, created: WebhookState | None = None
) -> HTMLResponse:
    api = page.api
    wanted = {"kind": kind or None, "about": of or None, "newest": "true"}
    alarms = asyncio.gather(
        api.listing("/alarms", Alarm, state="open", limit=MAX_OPEN, **wanted),
        api.listing("/alarms", Alarm, state="closed", limit=CLOSED_ON_PAGE, cursor=cursor or None, **wanted),
    )
    receivers = asyncio.gather(
        api.optional(api.listing("/channels", ChannelState)),
        api.optional(api.listing("/rules", Rule)),
        api.optional(api.listing("/heartbeats", HeartbeatState)),
        api.optional(api.listing("/webhooks", WebhookState)),
        api.optional(api.listing("/messages", Message, waiting="true", limit=MAX_MESSAGES)),
    )
    (opened, closed), (channels, rules, heartbeats, webhooks, waiting) = await asyncio.gather(
        alarms, receivers
    )
    known = dict.fromkeys(
        [*KINDS, *(alarm.kind for alarm in [*opened.items, *closed.items]), kind or "spike"]
    )
    return await page.render(
        "alarms.html",
        section="Alarms",
        title="Alarms",
        status=200 if created is None else 201,
        opened=[open_row(alarm, page.node) for alarm in opened.items],
        more_open=opened.cursor is not None,
        closed=[closed_row(alarm, page.node) for alarm in closed.items],
        unreadable=len(opened.unreadable),
        cursor=closed.cursor,
        first=not cursor,
        query=[(name, value) for name, value in (("kind", kind), ("of", of)) if value],
        kind=kind,
        of=of,
        kinds=sorted(known),
        channels=[channel_row(each, page.clock) for each in _items(channels)],
        rules=[rule_row(each) for each in _items(rules)],
        heartbeats=[heartbeat_row(each) for each in _items(heartbeats)],
        webhooks=_items(webhooks),
        waiting=[waiting_row(each) for each in _items(waiting)],
        more_waiting=waiting is not None and waiting.cursor is not None,
        created=created,
        typed=page.typed,
        form=page.message.form if page.message else "",
    )


def _items(listing: Listing[Any] | None) -> Sequence[Any]:
    return listing.items if listing is not None else []


# Alarms


@router.post(HERE + "/{alarm_id}/acknowledge")
async def acknowledge(page: PageDep, request: Request, alarm_id: str) -> RedirectResponse:
    fields = await read_form(request)
    kind, name = request.scope.get(ACTOR_KEY) or ("", "")
    by = fields.get("by") or (name if kind == "token" else "")
    shown = urlencode([(name, fields[name]) for name in ("kind", "of") if name in fields])
    here = f"{HERE}?{shown}" if shown else HERE  # with the filter that was set
    call = page.api.send(
        "POST",
        path_of("alarms", alarm_id, "acknowledge"),
        {"by": by[:200], "note": fields.get("note", "")},
    )
    return await carry_out(
        messages,
        call,
        done=f"Acknowledged: {alarm_id}",
        then="/" if fields.get("then") == "/" else here,  # back to Today, if it was done there
        otherwise=here,
        form=f"ack {alarm_id}",
        fields=fields,
    )


# Who is told


async def _test(page: Page, path: str) -> None:
    """Send a test message. Raises MaoError if it was not accepted."""
    result = SendResult.model_validate(await page.api.send("POST", path))
    if not result.delivered:
        raise MaoError(f"The test was not accepted: {result.error or 'no reason is known'}")


NOUNS = {"channels": "channel", "heartbeats": "heartbeat", "webhooks": "webhook", "rules": "rule"}


def _noun(kind: str) -> str:
    if kind not in NOUNS:
        raise NotFound(f"There are no {kind!r} here.", next=f"Open {HERE}.")
    return NOUNS[kind]


@router.post(HERE + "/receivers/{kind}/{name}/test")
async def test_receiver(page: PageDep, kind: str, name: str) -> RedirectResponse:
    noun = _noun(kind)
    call = _test(page, path_of(kind, name, "test"))
    done = f"The {noun} {name} accepted a test."
    return await carry_out(messages, call, done=done, then=HERE, otherwise=HERE)


@router.post(HERE + "/receivers/{kind}/{name}/remove")
async def remove_receiver(page: PageDep, kind: str, name: str) -> RedirectResponse:
    noun = _noun(kind)
    call = page.api.send("DELETE", path_of(kind, name))
    return await carry_out(messages, call, done=f"The {noun} {name} was removed.", then=HERE, otherwise=HERE)


async def _save(form: str, call: Awaitable[Any], fields: Mapping[str, str], done: str) -> RedirectResponse:
    """Await what a form sets; lead back to its section of the page."""
    where = f"{HERE}#{form}s"
    return await carry_out(messages, call, done=done, then=where, otherwise=where, form=form, fields=fields)


@router.post(HERE + "/channels")
async def add_channel(page: PageDep, request: Request) -> RedirectResponse:
    fields = await read_form(request)
    name = fields.get("name", "")
    call = page.api.send("POST", "/channels", {"name": name, "url": fields.pop("url", "")})
    done = f"Alarms now go to the channel {name}. Test it before you rely on it."
    return await _save("channel", call, fields, done)


@router.post(HERE + "/heartbeats")
async def set_heartbeat(page: PageDep, request: Request) -> RedirectResponse:
    fields = await read_form(request)
    name, url = fields.get("pipeline", ""), fields.pop("url", "")

    async def put() -> None:
        if not name:
            raise InvalidInput("The name of the pipeline is missing.")
        await page.api.send("PUT", path_of("heartbeats", name), {"url": url})

    return await _save("heartbeat", put(), fields, f"The runs of {name} are now reported to its heartbeat.")


@router.post(HERE + "/rules")
async def put_rule(page: PageDep, request: Request) -> RedirectResponse:
    fields = await read_form(request)

    async def put() -> None:
        body = read_rule(fields)
        await page.api.send("PUT", path_of("rules", str(body["name"])), body)

    return await _save("rule", put(), fields, f"The rule {fields.get('name')} applies to alarms from now on.")


@router.get(HERE + "/webhooks")
async def show_webhooks() -> RedirectResponse:
    """Lead to the alarms: the page that the form below answers with refreshes its parts from its address."""
    return RedirectResponse(HERE + "#webhooks", status_code=303)


@router.post(HERE + "/webhooks")
async def add_webhook(page: PageDep, request: Request) -> Response:
    """Add a webhook; its secret is shown in the answer itself, which nothing keeps."""
    fields = await read_form(request)
    body = {"name": fields.get("name", ""), "url": fields.get("url", "")}
    try:
        made = WebhookState.model_validate(await page.api.send("POST", "/webhooks", body))
    except MaoError as error:
        message = FormMessage(False, error.detail, error.next, "webhook", fields)
        return back_to(HERE + "#webhooks", messages.keep(message))
    return await _render(page, created=made)
