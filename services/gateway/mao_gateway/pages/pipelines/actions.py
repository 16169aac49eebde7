"""What the buttons on the page of a pipeline do. Each calls the API and leads back to the page."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import RedirectResponse

from mao_gateway.pages.formats import plural
from mao_gateway.pages.forms import Message, back_to, carry_out, key_of, read_form
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import InvalidInput, MaoError
from mao_shared.models import BackfillResult, Job, Schedule

from .schedules import changed_schedule
from .view import agreed_words

router = page_router()


def page_of(name: str, **query: str) -> str:
    """Return the address of a pipeline's page; the query has what the forms show again."""
    asked = urlencode({key: value for key, value in query.items() if value})
    return path_of("ui", "pipelines", name) + (f"?{asked}" if asked else "")


async def _act(name: str, call: Awaitable[Any], done: str) -> RedirectResponse:
    """Carry out an action of which nothing was typed."""
    return await carry_out(messages, call, done=done, then=page_of(name), otherwise=page_of(name))


def _needed(fields: Mapping[str, str], name: str) -> str:
    if (value := fields.get(name)) is None:
        raise InvalidInput(f"The form has no field {name!r}.", next="Send it from the page again.")
    return value


@router.post("/ui/pipelines/{name}/run")
async def run_now(page: PageDep, name: str, request: Request) -> RedirectResponse:
    key = key_of(await read_form(request))
    call = page.api.send("POST", "/pipeline/run", {"name": name}, key=key)
    return await _act(name, call, "A run is queued; it is the newest one on this page.")


@router.post("/ui/pipelines/{name}/approve")
async def approve(page: PageDep, name: str, request: Request) -> RedirectResponse:
    """Approve the definition that was shown; a node that is not enrolled is enrolled in exactly that."""
    fields = await read_form(request)
    body = {"definition": _needed(fields, "definition"), "agree": agreed_words(fields)}
    done = "Approved: the next run is of the new definition."
    if "enrol" in fields:
        done = f"{page.node} is enrolled. Run the pipeline now, or schedule it."
    return await _act(name, page.api.send("POST", f"/pipeline{path_of(name)}/approve", body), done)


@router.post("/ui/pipelines/{name}/renew")
async def renew(page: PageDep, name: str, request: Request) -> RedirectResponse:
    """Enrol again, which pins the images as they are on this node now."""
    body = {"agree": agreed_words(await read_form(request))}
    call = page.api.send("PUT", f"/enrolments{path_of(name)}", body)
    return await _act(name, call, "Enrolled again: the next run uses the images as they are here now.")


@router.post("/ui/pipelines/{name}/withdraw")
async def withdraw(page: PageDep, name: str) -> RedirectResponse:
    call = page.api.send("DELETE", f"/enrolments{path_of(name)}")
    return await _act(name, call, f"{page.node} takes no more part. What it collected is kept.")


@router.post("/ui/pipelines/{name}/pause")
async def pause(page: PageDep, name: str, request: Request) -> RedirectResponse:
    job = _needed(await read_form(request), "job")
    call = page.api.send("POST", f"/jobs{path_of(job)}/pause")
    return await _act(
        name, call, "Paused: no tick runs until it is resumed; then they are recorded as missed."
    )


@router.post("/ui/pipelines/{name}/resume")
async def resume(page: PageDep, name: str, request: Request) -> RedirectResponse:
    job = _needed(await read_form(request), "job")
    call = page.api.send("POST", f"/jobs{path_of(job)}/resume")
    return await _act(name, call, "Resumed from the next tick on. Run the ticks of the pause by a backfill.")


@router.post("/ui/pipelines/{name}/remove-job")
async def remove_job(page: PageDep, name: str, request: Request) -> RedirectResponse:
    job = _needed(await read_form(request), "job")
    return await _act(
        name, page.api.send("DELETE", f"/jobs{path_of(job)}"), "The schedule is deleted; its runs stay."
    )


@router.post("/ui/pipelines/{name}/schedule")
async def save_schedule(page: PageDep, name: str, request: Request) -> RedirectResponse:
    """Add a schedule, or put it in the place of the one that the form names."""
    fields = await read_form(request)
    cron, timezone = fields.get("cron", ""), fields.get("timezone", "UTC")
    seconds, replaced = "seconds" in fields, fields.get("job")
    shown = {"form": "schedule", "job": replaced or "", "cron": cron, "timezone": timezone}
    shown |= {"seconds": "true"} if seconds else {}
    try:
        done = await _save_schedule(page, name, cron, timezone, seconds=seconds, replaced=replaced)
    except MaoError as error:
        failed = Message(False, error.detail, error.next, "schedule", fields)
        return back_to(page_of(name, **shown), messages.keep(failed))
    return back_to(page_of(name), messages.keep(done))


async def _save_schedule(
    page: Page, name: str, cron: str, timezone: str, *, seconds: bool, replaced: str | None
) -> Message:
    """Add the new schedule before the old one is removed: ticks of both are one run, so none is lost."""
    if replaced is None:
        body: dict[str, Any] = {"name": name, "cron": cron, "timezone": timezone, "seconds": seconds}
    else:
        old = await page.api.get(f"/jobs{path_of(replaced)}", Job)
        body = changed_schedule(old, cron, timezone, seconds)
    added = Schedule.model_validate(await page.api.send("POST", "/pipeline/run", body))
    if replaced is None:
        return Message(True, f"Scheduled: {added.cron} in {added.timezone}.")
    if added.id == replaced:
        return Message(True, "Nothing is changed: the schedule has this cron string and zone already.")
    try:
        await page.api.send("DELETE", f"/jobs{path_of(replaced)}")
    except MaoError as error:
        detail = f"The new schedule is set, but the old one, {replaced}, was not removed: {error.detail}"
        return Message(False, detail, "Delete it below.")
    return Message(True, f"Changed: {added.cron} in {added.timezone}.")


@router.post("/ui/pipelines/{name}/backfill")
async def backfill(page: PageDep, name: str, request: Request) -> RedirectResponse:
    """Queue the ticks that the page has shown."""
    fields = await read_form(request)
    job, since, until = (_needed(fields, field) for field in ("job", "since", "until"))
    path = f"/jobs{path_of(job)}/backfill"
    try:
        answer = await page.api.send("POST", path, {"since": since, "until": until})
    except MaoError as error:
        failed = Message(False, error.detail, error.next, "backfill", fields)
        shown = page_of(name, form="backfill", job=job, since=since, until=until)
        return back_to(shown, messages.keep(failed))
    result = BackfillResult.model_validate(answer)
    more = " There are more: backfill again for the rest." if result.more_since else ""
    done = f"{plural(len(result.queued), 'run is', 'runs are')} queued, oldest first.{more}"
    return back_to(page_of(name), messages.keep(Message(True, done)))
