"""What all OpenAPI documents have in common: described tags, documented problems, event streams.

The documents are OpenAPI 3.1.0, which Swagger UI and client generators read. FastAPI describes the items of
an event stream by `itemSchema`, a keyword of 3.2 only; here it becomes an extension.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mao_shared.problems import MEDIA_TYPE, Problem

Document = dict[str, Any]
EVENTS = "text/event-stream"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
TAGS = {
    "tools": "Container images and how to run them.",
    "datasets": "Git repositories with a branch for each node: the records, and their clones on this node.",
    "pipelines": "Steps of a tool and its datasets, registered for the whole federation.",
    "catalogue": "Pipelines, tools and datasets that others describe, and their installation on this node.",
    "enrolments": "Pipelines that this node takes part in, with images pinned by digest.",
    "consent": "Changes of pipelines that wait for this node's approval, and nodes trusted with changes.",
    "runs": "Executions of pipelines on this node, with their steps and logs.",
    "jobs": "Starting pipelines, now or by cron, and the schedules of this node.",
    "rounds": "Votes over the nodes' snapshots, how each value was decided, and spikes.",
    "evidence": "Runs as RO-Crates, and verification of what they published.",
    "external data": "Values of programs that are no tools of a pipeline, and the insights of tools.",
    "alarms": "Alarms, the control metrics that they watch, and the webhooks that they are sent to.",
    "notifications": "Who is told about alarms: channels, rules and heartbeats, and the messages to them.",
    "secrets": "Passwords and keys that this node keeps for tools; no response has their values.",
    "images": "Images on this node's engine.",
    "engine": "The container engine.",
    "nodes": "Nodes that are present.",
    "federation": "Membership of this node and of the others, and what they publish.",
    "node": "This node: its state, its events, its store.",
    "audit": "Who changed what on this node.",
    "health": "For supervisors and monitoring; every service has these.",
}
"""Tag → description, in the order of the API pages."""

_PROBLEMS = {
    400: ("BadRequest", "The body is not JSON in UTF-8"),
    401: ("Unauthorized", "The gateway does not know the caller, or the token"),
    403: ("Forbidden", "The call comes from a web page of another origin, or by a host name not allowed"),
    404: ("NotFound", "A record that the call names does not exist"),
    409: ("Conflict", "The present state does not allow it, or a stored record cannot be read"),
    410: ("Gone", "The store has dropped the history that the cursor needs; list again without it"),
    412: ("PreconditionFailed", "The record has changed since it was read"),
    413: ("ContentTooLarge", "The body is larger than 1 MiB"),
    422: ("InvalidInput", "Parameters or body break the rules that `errors` names"),
    503: ("Unavailable", "The store or another dependency does not answer; try again after `Retry-After`"),
}
"""Status → name and description of the problem response."""
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}}


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield method (lower case), path and operation of all operations, in the document's order."""
    for path, item in document.get("paths", {}).items():
        for method, operation in item.items():
            if method in METHODS:
                yield method, path, operation


def complete(document: Document) -> Document:
    """Add tags, problem schema and problem responses to FastAPI's document, in place; make it valid 3.1.0."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).setdefault("Problem", Problem.model_json_schema())
    for method, path, operation in operations(document):
        document_problems(document, operation, problem_statuses(method, path, operation))
        for response in operation["responses"].values():
            _describe_stream(response.get("content", {}))
    document["tags"] = used_tags(document)
    return document


def used_tags(document: Document) -> list[Document]:
    """Return the tags that operations of the document have, described, in the order of TAGS."""
    used = {tag for _, _, operation in operations(document) for tag in operation.get("tags", ())}
    return [{"name": tag, "description": text} for tag, text in TAGS.items() if tag in used]


def problem_statuses(method: str, path: str, operation: Document) -> list[int]:
    """Return the statuses of the problems that an operation of a service may answer with. Pure.

    They follow from what the operation takes; a route declares others itself.
    """
    if path in ("/livez", "/readyz"):  # for everybody, by any name
        return [503] if path == "/readyz" else []
    if path in ("/metrics", "/conditions"):
        return [403]
    parameters = operation.get("parameters", [])
    names = {parameter["name"] for parameter in parameters}
    has_body = "requestBody" in operation
    in_path = any(parameter["in"] == "path" for parameter in parameters)
    statuses = {403, 503}
    statuses |= {400, 413} if has_body else set()
    statuses |= {404} if in_path or has_body or names & {"pipeline", "schedule", "node", "source"} else set()
    statuses |= {409} if in_path or method != "get" else set()
    statuses |= {410} if "cursor" in names else set()
    statuses |= {412} if "if-match" in names else set()
    statuses |= {422} if parameters or has_body else set()
    return sorted(statuses)


def document_problems(document: Document, operation: Document, statuses: list[int]) -> None:
    """Add problem responses to an operation of the document, in place, unless it documents the status."""
    shared = document["components"].setdefault("responses", {})
    responses = operation.setdefault("responses", {})
    for status in statuses:
        name, text = _PROBLEMS[status]
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        headers = {"headers": _RETRY_AFTER} if status == 503 else {}
        shared.setdefault(name, {"description": text, **headers, "content": content})
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{name}"})
    operation["responses"] = dict(sorted(responses.items()))  # digits come before "default"


def _describe_stream(content: Document) -> None:
    stream = content.get(EVENTS)
    if stream is None:
        return
    item = stream.pop("itemSchema", None)
    stream.setdefault("schema", {"type": "string", "description": "Server-sent events"})
    if item is not None:
        stream["x-item-schema"] = item
