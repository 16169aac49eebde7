"""Responses in the original MAO Orchestrator's format, for its clients (docs/decisions/0031).

The original returned lists as bare arrays or maps, and single records as JSON text in a JSON string, and its
two clients depend on that. Both use the library `requests` with its default headers; none of our clients
does. The format is chosen by the request:

    Accept names application/vnd.mao-orchestrator+json          the original's
    Accept names application/json, or `limit` or `cursor` given ours
    else, User-Agent is python-requests/…                       the original's
    else                                                        ours
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from mao_shared.errors import MaoError
from mao_shared.models import Dataset, Pipeline, Step, Tool

ORIGINAL_TYPE: Final = "application/vnd.mao-orchestrator+json"
_LEGACY_USER_AGENT = "python-requests/"
_VARY = {"Vary": "Accept, User-Agent"}


async def asks_original(request: Request, response: Response) -> bool:
    """Return True if the response must have the original's format (a dependency); sets `Vary` for caches."""
    response.headers.update(_VARY)
    sent = ",".join(request.headers.getlist("accept"))
    accepted = [part.partition(";")[0].strip().lower() for part in sent.split(",")]
    if ORIGINAL_TYPE in accepted:
        return True
    if "application/json" in accepted or {"limit", "cursor"} & request.query_params.keys():
        return False
    return request.headers.get("user-agent", "").startswith(_LEGACY_USER_AGENT)


AsksOriginal = Annotated[bool, Depends(asks_original)]


def original_answer(document: Any, status: int = 200) -> JSONResponse:
    """Return the document as a response, without validation."""
    return JSONResponse(document, status, headers=_VARY)


def original_tool(tool: Tool) -> str:
    """Return a tool as JSON text with the original's fields, and its description unless that is empty."""
    fields = {name: getattr(tool, name) for name in ("author", "image", "data_repo", "code_repo", "artefact")}
    return json.dumps(fields | ({"description": tool.description} if tool.description else {}))


def original_dataset(dataset: Dataset) -> str:
    """Return a dataset as JSON text in the original's format."""
    return json.dumps({"master": dataset.master, "nodes": dataset.nodes})


def original_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """Return name and steps in the original's format; the title, if there is one, replaces the name."""
    return {"name": pipeline.called, "steps": [original_step(step) for step in pipeline.steps]}


def original_step(step: Step) -> dict[str, Any]:
    """Return a step in the original's format, with only the fields that it knows."""
    return {
        "name": step.title or step.name,
        "tool": step.tool,
        "input_dataset": step.input_dataset,
        "output_dataset": step.dataset,
        "cmd": step.command or [],
        "env": step.env,
        "docker_socket": step.engine_socket,
    }


def with_errors(error: MaoError) -> None:
    """Add `ok` and `errors` to the error, which the original's clients expect for a rejected pipeline."""
    nothing: dict[str, Any] = {"missing_tools": [], "missing_datasets": []}
    reason = {"refused": f"{error.detail} {error.next or ''}".strip()}
    error.facts = {"ok": False, "errors": nothing | reason} | error.facts
