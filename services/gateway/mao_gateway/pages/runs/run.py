"""*Run*: how a run came about and went on, its log, what it read and published; and what to do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from mao_gateway.pages.checks import decision_words, run_checks
from mao_gateway.pages.formats import plural, size
from mao_gateway.pages.forms import Message, back_to, carry_out, key_of, read_form
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Run
from mao_shared.models.federation import LogAnswer, NodeRuns, RunBrief
from mao_shared.models.run import Verification
from mao_shared.text import harmless

from . import view
from .log import LogQuery, line_text, read_log
from .outputs import read_outputs
from .timeline import make_timeline

router = page_router()
PAST_RUNS = 20  # whose durations tell the usual one
MAX_FAULTS = 5  # of a verification in a message
TAIL = 1000  # lines of another node's log
USUAL_FOR_SECONDS = 60.0
ASK_AGAIN_SECONDS = 15.0  # after which another node is asked for its log again


@router.get("/ui/runs/{run_id}")
async def show_run(
    page: PageDep,
    run_id: str,
    node: Annotated[str | None, Query(max_length=100)] = None,
    step: Annotated[str, Query(max_length=80)] = "",
    q: Annotated[str, Query(max_length=200)] = "",
    first: Annotated[int | None, Query(alias="from", ge=1, le=2**40)] = None,
    follow: bool = True,
) -> HTMLResponse:
    if node is not None and node != page.node:
        return await _show_elsewhere(page, node, run_id, step)
    run = await page.api.get(path_of("runs", run_id), Run)
    query = LogQuery(step, q.strip(), first, follow)
    log, outputs, usual = await asyncio.gather(
        read_log(page.api, run, query), read_outputs(page.api, run), _usual_seconds(page, run.pipeline)
    )
    return await page.render(
        "run.html",
        section="Runs",
        title=f"Run {view.short_name(run.id)} of {run.pipeline}",
        run=run,
        name=view.short_name(run.id),
        notes=view.run_notes(run, page.clock),
        actions=view.run_actions(run),
        reproducible=view.reproducible(run),
        consequence=view.cancel_consequence(run),
        took=view.took(run, page.clock.now),
        usual=usual,
        progress=view.progress(run),
        timeline=make_timeline(run, page.clock.now, page.clock.zone),
        log=log,
        line_text=line_text,
        outputs=outputs,
        checks=run_checks(run),
        decision_words=decision_words,
    )


async def _usual_seconds(page: Page, pipeline: str) -> float | None:
    """Return how long the pipeline's runs usually take; it is read once a minute."""

    async def read() -> float | None:
        query = {"pipeline": pipeline, "phase": "succeeded", "limit": PAST_RUNS}
        found = await page.api.optional(page.api.listing("/runs", Run, **query))
        return view.usual_seconds(found.items) if found else None

    return await page.api.cache.recent(f"usual {pipeline}", USUAL_FOR_SECONDS, read)


async def _show_elsewhere(page: Page, node: str, run_id: str, step: str) -> HTMLResponse:
    """Show what another node tells of a run, and the end of its log if it shares logs."""
    asked = {"node": node, "run": run_id, "step": step or None, "tail": TAIL}
    known, log = await asyncio.gather(
        page.api.listing("/federation/runs", NodeRuns), _read_shared_log(page, asked)
    )
    found = find_brief(known.items, node, run_id)
    if found is None:
        raise NotFound(
            f"The node {node} has told of no run {run_id!r}; it tells only of its latest ones.",
            next=f"See its runs: maoctl pipeline runs PIPELINE --all-nodes, or ask on {node} itself.",
        )
    answer, problem = log
    return await page.render(
        "run_elsewhere.html",
        section="Runs",
        title=f"Run {view.short_name(run_id)} of {found[0].pipeline} on {node}",
        of=found[0],
        run=found[1],
        name=view.short_name(run_id),
        answer=answer,
        lines=harmless(answer.text).splitlines() if answer else [],
        log_problem=problem,
    )


def find_brief(known: list[NodeRuns], node: str, run_id: str) -> tuple[NodeRuns, RunBrief] | None:
    """Return a run that another node has told of, with what is known of the node's other runs."""
    pairs = ((of, run) for of in known if of.node == node for run in of.runs)
    return next((pair for pair in pairs if pair[1].id == run_id), None)


async def _read_shared_log(page: Page, asked: dict[str, Any]) -> tuple[LogAnswer | None, MaoError | None]:
    """Return the end of another node's log. A page that refreshes itself must not ask that node each time."""

    async def ask() -> tuple[LogAnswer | None, MaoError | None]:
        try:
            return await page.api.get("/federation/logs", LogAnswer, **asked), None
        except MaoError as error:
            return None, error

    return await page.api.cache.recent(f"log {asked}", ASK_AGAIN_SECONDS, ask)


# Actions


@router.post("/ui/runs/{run_id}/cancel")
async def cancel(request: Request, page: PageDep, run_id: str) -> Response:
    fields = await read_form(request)
    here = path_of("ui", "runs", run_id)
    return await carry_out(
        messages,
        page.api.send("POST", path_of("runs", run_id, "cancel"), {"reason": fields.get("reason", "")}),
        done="The run is being cancelled.",
        then=here,
        otherwise=here,
        form="cancel",
        fields=fields,
    )


@router.post("/ui/runs/{run_id}/retry")
async def retry(request: Request, page: PageDep, run_id: str) -> Response:
    key = key_of(await read_form(request))
    start = page.api.send("POST", path_of("runs", run_id, "retry"), key=key)
    return await _go_to_new(run_id, "retry", start, "This run was started.", {})


@router.post("/ui/runs/{run_id}/reproduce")
async def reproduce(request: Request, page: PageDep, run_id: str) -> Response:
    fields = await read_form(request)
    body = {"step": fields["step"]} if "step" in fields else {}
    start = page.api.send("POST", path_of("runs", run_id, "reproduce"), body, key=key_of(fields))
    done = "This reproduction was started. It publishes nothing; its output is compared with the original's."
    return await _go_to_new(run_id, "reproduce", start, done, fields)


async def _go_to_new(
    run_id: str, form: str, start: Awaitable[Any], done: str, fields: dict[str, str]
) -> Response:
    """Redirect to the page of the run that was started, or back with the error."""
    try:
        run = await start
    except MaoError as error:
        failed = Message(False, error.detail, error.next, form, fields)
        return back_to(path_of("ui", "runs", run_id), messages.keep(failed))
    return back_to(path_of("ui", "runs", run["id"]), messages.keep(Message(True, done)))


@router.post("/ui/runs/{run_id}/verify")
async def verify(page: PageDep, run_id: str) -> Response:
    here = path_of("ui", "runs", run_id)
    try:
        found = Verification.model_validate(
            await page.api.send("GET", path_of("runs", run_id, "verify"))  # may take minutes
        )
    except MaoError as error:
        return back_to(here, messages.keep(Message(False, error.detail, error.next, "verify")))
    return back_to(here, messages.keep(verification_message(found)))


def verification_message(found: Verification) -> Message:
    """Return the result of a verification as a message."""
    read = f"{plural(found.files, 'file')} and {size(found.bytes)} were read"
    unchecked = f"Not checked: {'; '.join(found.unchecked)}." if found.unchecked else None
    if found.ok:
        return Message(True, f"The run is as recorded: {read}.", unchecked)
    faults = [
        f"step {fault.step}, {fault.what}{f' {fault.path}' if fault.path else ''}: {fault.detail}"
        for fault in found.faults[:MAX_FAULTS]
    ]
    more = len(found.faults) - MAX_FAULTS
    told = "; ".join(faults) + (f"; and {more} more" if more > 0 else "")
    return Message(False, f"The run is not as recorded ({read}).", told)
