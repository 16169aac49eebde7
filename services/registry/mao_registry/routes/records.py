"""`/registry/{tools,datasets,pipelines}`: the five operations on a kind of record, and example bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Path, Response
from fastapi.openapi.models import Example
from pydantic import BaseModel, BeforeValidator

from mao_registry.records.collection import Collection
from mao_registry.registry import Registry
from mao_shared.keys import RegistryKind
from mao_shared.models import Listing, Name, Named
from mao_shared.models.common import Removed
from mao_shared.store import Stored
from mao_shared.web.dependencies import TITLE, Attempt, IdempotencyKey, IfMatch, Paging, once
from mao_shared.web.original import (
    AsksOriginal,
    original_answer,
    original_dataset,
    original_pipeline,
    original_tool,
)

from .common import CREATED_HEADERS, ETAG_HEADER, PathName, PipelineName, RegistryDep, answer, listing

Examples = dict[str, Example]

_DATA, _CODE = "https://git.example.org/mao/data", "https://git.example.org/mao/tools"
TOOLS: Examples = {
    "seed": {
        "summary": "As the seed's client sends it",
        "value": {
            "name": "system-performance",
            "author": "lab",
            "image": "mao-example/system-performance:1.0.0",
            "data_repo": _DATA,
            "code_repo": _CODE,
            "artefact": "performance",
        },
    },
    "limits": {
        "summary": "With environment, limits and a privilege",
        "value": {
            "name": "performance-summary",
            "author": "lab",
            "image": "mao-example/performance-summary:1.0.0",
            "env": {"DEPTH": "3"},
            "limits": {"cpu": 2, "memory": "2g", "pids": 200, "time": "30m"},
            "privileges": {"capabilities": ["NET_RAW"]},
        },
    },
}
DATASETS: Examples = {
    "seed": {
        "summary": "As the seed's README has it",
        "value": {
            "name": "performance",
            "body": {"master": "git@git.example.org:mao/performance.git", "nodes": []},
        },
    },
    "flat": {
        "summary": "Flat, with a description, and keys of values that other programs send",
        "value": {
            "name": "performance-summary",
            "master": "git@git.example.org:mao/performance-summary.git",
            "description": "What the nodes measure of themselves, in short",
            "external": ["temperature"],
        },
    },
}
_STEPS = [
    {"tool": "system-performance", "dataset": "performance"},
    {"tool": "performance-summary", "dataset": "performance-summary", "input_dataset": "performance"},
]
PIPELINES: Examples = {
    "steps": {"summary": "Two steps", "value": {"name": "measure-and-summarise", "steps": _STEPS}},
}
INIT: Examples = {
    "seed": {
        "summary": "As the seed's README has it: the pipeline gets the tool's name",
        "value": {"tool": "system-performance", "dataset": "performance"},
    },
    "steps": {
        "summary": "Two steps, a privilege granted",
        "value": {"name": "measure-and-summarise", "steps": _STEPS, "agree": ["capability NET_RAW"]},
    },
}

R = TypeVar("R", bound=Named)
Pick = Callable[[Registry], Collection[R]]


@dataclass(frozen=True)
class Presentation:
    """The path parameter of a kind's records, with an example, and their form for the original's clients."""

    example: str

    listed: Callable[[Any], Any] = lambda record: record.name
    shown: Callable[[Any], Any] = lambda record: record.model_dump(mode="json")
    by_title: bool = False

    @property
    def path(self) -> str:
        return f"/{{name:{TITLE}}}" if self.by_title else "/{name}"

    def annotate_name(self, handler: Callable[..., Any]) -> None:
        """Annotate the handler's `name` for FastAPI; a title may contain a slash."""
        named = Annotated[Name, Path(description="Name of the record", examples=[self.example])]
        handler.__annotations__["name"] = PipelineName if self.by_title else named


PRESENTATIONS: dict[RegistryKind, Presentation] = {
    "tools": Presentation("system-performance", shown=original_tool),
    "datasets": Presentation("performance", shown=original_dataset),
    "pipelines": Presentation(
        "system-performance",
        listed=lambda pipeline: pipeline.called,
        shown=lambda pipeline: original_pipeline(pipeline)["steps"],
        by_title=True,
    ),
}


def collection_router(kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples) -> APIRouter:
    """Create the routes `/registry/{kind}[/{name}]`; `pick` returns the kind's collection."""
    router = APIRouter(prefix=f"/registry/{kind}", tags=[kind])
    presentation = PRESENTATIONS[kind]
    _add_reads(router, kind, model, pick, presentation)
    _add_create(router, kind, model, pick, examples)
    _add_changes(router, kind, model, pick, examples, presentation)
    return router


def _add_reads(
    router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R], presentation: Presentation
) -> None:
    page_model = Listing[model]  # type: ignore[valid-type]  # a type only FastAPI needs to know

    @router.get("", name=f"{kind}.list", summary=f"List {kind}", response_model=page_model)
    async def page(registry: RegistryDep, query: Paging, original: AsksOriginal) -> Listing[R] | Response:
        if original:
            return original_answer(
                [presentation.listed(stored.record) for stored in await pick(registry).records.all()]
            )
        return listing(await pick(registry).page(query.limit, query.cursor))

    async def read(
        registry: RegistryDep, response: Response, name: PathName, original: AsksOriginal
    ) -> R | Response:
        stored = await pick(registry).read(name)
        return original_answer(presentation.shown(stored.record)) if original else answer(response, stored)

    presentation.annotate_name(read)
    show = router.get(
        presentation.path,
        name=f"{kind}.get",
        summary=f"Show a {kind[:-1]}",
        response_model=model,
        responses=ETAG_HEADER,
    )
    show(read)


def _add_create(
    router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples
) -> None:
    async def create(
        registry: RegistryDep, response: Response, record: R, idempotency_key: IdempotencyKey = None
    ) -> R:
        async def make(attempt: Attempt) -> Stored[R]:
            return await pick(registry).create(record, name_was_free=attempt.name_was_free)

        async def taken() -> bool:
            return await pick(registry).exists(record.name)

        store, node = registry.repositories.own, registry.repositories.node
        stored = await once(store, node, f"{kind}.create", idempotency_key, record, model, make, taken=taken)
        return answer(response, stored, f"/registry/{kind}/{stored.record.name}")

    _annotate_body(model, examples, create)
    register = router.post(
        "",
        name=f"{kind}.create",
        summary=f"Register a {kind[:-1]}",
        status_code=201,
        response_model=model,
        responses=CREATED_HEADERS,
    )
    register(create)


def _add_changes(
    router: APIRouter,
    kind: RegistryKind,
    model: type[R],
    pick: Pick[R],
    examples: Examples,
    presentation: Presentation,
) -> None:
    noun = kind[:-1]

    async def update(
        registry: RegistryDep, response: Response, name: PathName, record: R, if_match: IfMatch
    ) -> R:
        return answer(response, await pick(registry).update(name, record, if_match))

    _annotate_body(model, examples, update)
    presentation.annotate_name(update)
    replace = router.put(
        presentation.path,
        name=f"{kind}.update",
        summary=f"Replace a {noun}",
        response_model=model,
        responses=ETAG_HEADER,
    )
    replace(update)

    async def delete(registry: RegistryDep, name: PathName, if_match: IfMatch) -> Removed:
        await pick(registry).delete(name, if_match)
        return Removed(removed=name, detail=f"The {noun} {name!r} is removed.")

    presentation.annotate_name(delete)
    router.delete(presentation.path, name=f"{kind}.delete", summary=f"Remove an unused {noun}")(delete)


class NestedRecord(BaseModel):
    """A record as the seed's clients send it, with its other fields below `body`."""

    name: Name
    body: dict[str, Any]


def _annotate_body(model: type[Named], examples: Examples, handler: Callable[..., Any]) -> None:
    """Annotate the handler's body for FastAPI, which cannot resolve a type variable.

    The models accept the seed's nesting by themselves; only the API pages need to be told.
    """
    both = BeforeValidator(lambda body: body, json_schema_input_type=model | NestedRecord)
    handler.__annotations__["record"] = Annotated[model, both, Body(openapi_examples=examples)]
