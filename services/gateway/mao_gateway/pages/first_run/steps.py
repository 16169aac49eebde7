"""*First run*: a node without a pipeline is greeted with three steps: a tool, a dataset, a schedule.

The same steps add further pipelines.

What was chosen so far is in the page's address, so that a reload or the browser's back button loses nothing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse

from mao_gateway.pages.forms import Message, back_to, carry_out, key_of, read_form
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import InvalidInput, MaoError, NotFound
from mao_shared.models import Dataset, Enrolment, NextTimes, Pipeline, Run, Tool, is_name
from mao_shared.models.catalogue import CatalogueEntry, CatalogueSource
from mao_shared.models.common import Timestamp
from mao_shared.models.dataset import BareRepository
from mao_shared.models.tool import CheckReport

from .catalogue import describe_needs

router = page_router()
WELCOME = "/ui/welcome"
MAX_CHOICES = 100  # tools or datasets in a list
MAX_ENTRIES = 10  # of the catalogue, on this page
SCHEDULES = (
    ("0 4 * * *", "every day at 04:00"),
    ("0 * * * *", "every hour"),
    ("*/15 * * * *", "every 15 minutes"),
    ("0 4 * * mon", "every Monday at 04:00"),
)
OTHER = ""  # the schedule is given in crontab syntax
Chosen = Annotated[str, Query(max_length=200)]


def welcome_address(**chosen: str | None) -> str:
    """Return the address of the page with what was chosen."""
    query = urlencode({name: value for name, value in chosen.items() if value})
    return f"{WELCOME}?{query}" if query else WELCOME


@router.get(WELCOME)
async def welcome(
    page: PageDep, tool: Chosen = "", dataset: Chosen = "", pipeline: Chosen = "", run: Chosen = ""
) -> HTMLResponse:
    return await greet(page, tool, dataset, pipeline, run)


async def greet(
    page: Page, tool: str = "", dataset: str = "", pipeline: str = "", run: str = ""
) -> HTMLResponse:
    """Return the page. `pipeline`: one that is registered, in place of a tool and a dataset."""
    api = page.api
    (
        (found_tool, found_dataset, found_run),
        (tools, datasets),
        (entries, sources),
        (present, first),
    ) = await asyncio.gather(
        asyncio.gather(
            _find(api, "tools", tool, Tool),
            _find(api, "datasets", dataset, Dataset),
            api.optional(api.get(path_of("runs", run), Run)) if run else _nothing(),
        ),
        asyncio.gather(
            api.optional(api.listing("/registry/tools", Tool, limit=MAX_CHOICES)),
            api.optional(api.listing("/registry/datasets", Dataset, limit=MAX_CHOICES)),
        ),
        asyncio.gather(
            api.optional(
                api.listing("/catalogue", CatalogueEntry, kind="pipelines", local="true", limit=MAX_ENTRIES)
            ),
            api.optional(api.listing("/catalogue/sources", CatalogueSource)),
        ),
        asyncio.gather(
            api.optional(api.listing("/registry/pipelines", Pipeline, limit=1)),
            api.optional(first_time(api, SCHEDULES[0][0], page.clock.zone.key)),
        ),
    )
    is_new = not (present and present.items)
    form = page.message.form if page.message else ""
    return await page.render(
        "first_run.html",
        section="Today",
        title=f"Welcome to {page.node}" if is_new else "Add a pipeline",
        is_new=is_new,
        tool=found_tool,
        dataset=found_dataset,
        pipeline=pipeline if is_name(pipeline) else "",
        run=found_run,
        tools=[each.name for each in tools.items] if tools else [],
        datasets=[each.name for each in datasets.items] if datasets else [],
        schedules=SCHEDULES,
        zones=list(dict.fromkeys([page.clock.zone.key, "UTC"])),
        first=first,
        entries=entries.items if entries else [],
        more=bool(entries and entries.cursor),
        sources=sources.items if sources else [],
        describe_needs=describe_needs,
        typed=dict(page.message.fields) if page.message and not page.message.good else {},
        failed=form,
        chosen={"tool": tool, "dataset": dataset, "pipeline": pipeline},
    )


async def _nothing() -> None:
    return None


async def _find(
    api: NodeApi, kind: str, name: str, model: type[Tool] | type[Dataset]
) -> Tool | Dataset | None:
    if not is_name(name):
        return None
    return await api.optional(api.get(path_of("registry", kind, name), model))


async def first_time(api: NodeApi, cron: str, timezone: str) -> Timestamp | None:
    """Return the next time of a cron string."""
    body = {"cron": cron, "timezone": timezone, "count": 1}
    times = NextTimes.model_validate(await api.send("POST", "/cron/preview", body)).times
    return times[0] if times else None


# Steps 1 and 2


@router.post(f"{WELCOME}/tool")
async def post_tool(page: PageDep) -> RedirectResponse:
    fields = await read_form(page.request)
    name, dataset = fields.get("name"), fields.get("dataset")
    return await carry_out(
        messages,
        _add_tool(page.api, fields),
        done=f"The tool {name} is registered.",
        then=welcome_address(tool=name, dataset=dataset),
        otherwise=welcome_address(dataset=dataset),
        form="tool",
        fields=fields,
    )


async def _add_tool(api: NodeApi, fields: dict[str, str]) -> None:
    """Check an image and register it. Raises InvalidInput if it does not comply, unless that is accepted."""
    if "unchecked" not in fields:
        body = {"image": fields.get("image", ""), "once": True}
        report = CheckReport.model_validate(await api.send("POST", "/tools/check", body))
        failed = [finding for finding in report.findings if not finding.ok]
        if failed:
            raise InvalidInput(
                f"{report.image} does not comply: {'; '.join(finding.detail for finding in failed)}",
                next=failed[0].advice or "Mend the image, or add it without the check.",
            )
    tool = {"name": fields.get("name", ""), "image": fields.get("image", "")}
    await api.send("POST", "/registry/tools", tool, key=key_of(fields))


@router.post(f"{WELCOME}/dataset")
async def post_dataset(page: PageDep) -> RedirectResponse:
    fields = await read_form(page.request)
    name, tool = fields.get("name"), fields.get("tool")
    return await carry_out(
        messages,
        _add_dataset(page.api, fields),
        done=f"The dataset {name} is registered.",
        then=welcome_address(tool=tool, dataset=name),
        otherwise=welcome_address(tool=tool),
        form="dataset",
        fields=fields,
    )


async def _add_dataset(api: NodeApi, fields: dict[str, str]) -> None:
    name, key = fields.get("name", ""), key_of(fields)
    if fields.get("where") == "remote":
        master = fields.get("remote", "")
        if not master:
            raise InvalidInput(
                "The remote is not given.", next="Give its URL, or let the node make the repository."
            )
        await api.send("POST", "/remotes/check", {"master": master})
    else:
        made = BareRepository.model_validate(
            await api.send("POST", "/bare-repo/init", {"name": name}, key=key)
        )
        master = made.master
    await api.send("POST", "/registry/datasets", {"name": name, "master": master}, key=key)


# Step 3


@router.post(f"{WELCOME}/start")
async def post_start(page: PageDep) -> RedirectResponse:
    """Enrol this node in a pipeline, and run it once or schedule it."""
    fields = await read_form(page.request)
    chosen = {name: fields.get(name) for name in ("tool", "dataset", "pipeline")}
    try:
        pipeline = fields.get("pipeline") or await _make_pipeline(page.api, fields)
        if fields.get("do") == "once":
            run = Run.model_validate(
                await page.api.send("POST", "/pipeline/run", {"name": pipeline}, key=key_of(fields))
            )
            then, text = welcome_address(**chosen, run=run.id), f"{pipeline} was started."
        else:
            text = await _schedule(page, pipeline, fields)
            then = path_of("ui", "pipelines", pipeline)
    except MaoError as error:
        failed = Message(False, error.detail, error.next, "start", fields)
        return back_to(welcome_address(**chosen), messages.keep(failed))
    return back_to(then, messages.keep(Message(True, text)))


async def _make_pipeline(api: NodeApi, fields: dict[str, str]) -> str:
    """Enrol this node in a pipeline of the tool and the dataset, unless it is; return its name."""
    tool, dataset = fields.get("tool", ""), fields.get("dataset", "")
    try:
        enrolment = await api.get(path_of("enrolments", tool), Enrolment)
        if [step.output.name for step in enrolment.steps] == [dataset]:
            return tool
    except NotFound:
        pass
    await api.send("POST", "/pipeline/init", {"tool": tool, "dataset": dataset})
    return tool


async def _schedule(page: Page, pipeline: str, fields: dict[str, str]) -> str:
    """Schedule a pipeline; return what to say of it."""
    cron = fields.get("when") or fields.get("cron", "")
    if not cron:
        raise InvalidInput("The schedule is not given.", next="Choose one, or write it in crontab syntax.")
    timezone = fields.get("zone", "UTC")
    await page.api.send("POST", "/pipeline/run", {"name": pipeline, "cron": cron, "timezone": timezone})
    first = await first_time(page.api, cron, timezone)
    when = f", for the first time {page.clock.full(first)}" if first else ""
    return f"{pipeline} is scheduled{when}."
