"""`/registry/{tools,datasets,pipelines}`: the five calls of one kind of record.

Example bodies for the API pages; the first of each is the seed's.

The five calls of one kind of record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Response
from fastapi.openapi.models import Example

from mao_registry.records.catalogue import Catalogue
from mao_registry.registry import Registry
from mao_shared.keys import RegistryKind
from mao_shared.models import Listing, Named
from mao_shared.store import Stored
from mao_shared.web.dependencies import TITLE, Attempt, IdempotencyKey, IfMatch, Paging, once
from mao_shared.web.original import (
    AsksOriginal,
    Removed,
    original_answer,
    original_dataset,
    original_pipeline,
    original_tool,
)

from .common import CREATED_HEADERS, ETAG_HEADER, PathName, PipelineName, TheRegistry, answer, listing

Examples = dict[str, Example]

TOOLS: Examples = {
    "seed": {
        "summary": "As the seed's client sends it",
        "value": {
            "name": "crawler",
            "author": "lab",
            "image": "ghcr.io/lab/crawler:1.4",
            "data_repo": "https://git.example.org/lab/data",
            "code_repo": "https://git.example.org/lab/crawler",
            "artefact": "helm-charts",
        },
    },
    "limits": {
        "summary": "With command, environment, limits and a privilege",
        "value": {
            "name": "scanner",
            "author": "lab",
            "image": "ghcr.io/lab/scanner:2",
            "command": ["scan", "--all"],
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
            "name": "helm-charts",
            "body": {"master": "git@git.example.org:mao/helm-charts.git", "nodes": []},
        },
    },
    "flat": {
        "summary": "Flat, with a description",
        "value": {
            "name": "performance",
            "master": "/srv/git/performance.git",
            "description": "What the nodes measure of themselves",
        },
    },
}

_STEPS = [
    {"tool": "crawler", "dataset": "helm-charts"},
    {"tool": "scanner", "dataset": "findings", "input_dataset": "helm-charts"},
]

PIPELINES: Examples = {
    "steps": {"summary": "Two steps", "value": {"name": "crawl-and-scan", "steps": _STEPS}},
}

INIT: Examples = {
    "seed": {
        "summary": "As the seed's README has it: the pipeline bears the tool's name",
        "value": {"tool": "crawler", "dataset": "helm-charts"},
    },
    "steps": {
        "summary": "Two steps, a privilege granted",
        "value": {"name": "crawl-and-scan", "steps": _STEPS, "agree": ["capability NET_RAW"]},
    },
}

R = TypeVar("R", bound=Named)

Pick = Callable[[Registry], Catalogue[R]]


@dataclass(frozen=True)
class Forms:
    """How records of a kind are found by their path, and what the original's clients get of them."""

    listed: Callable[[Any], Any] = lambda record: record.name
    shown: Callable[[Any], Any] = lambda record: record.model_dump(mode="json")
    by_title: bool = False

    @property
    def path(self) -> str:
        return f"/{{name:{TITLE}}}" if self.by_title else "/{name}"

    def name(self, handler: Callable[..., Any]) -> None:
        """Tells FastAPI what the handler's `name` may be; a title may hold a slash."""
        handler.__annotations__["name"] = PipelineName if self.by_title else PathName


FORMS: dict[RegistryKind, Forms] = {
    "tools": Forms(shown=original_tool),
    "datasets": Forms(shown=original_dataset),
    "pipelines": Forms(
        listed=lambda pipeline: pipeline.called,
        shown=lambda pipeline: original_pipeline(pipeline)["steps"],
        by_title=True,
    ),
}


def catalogue_router(kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples) -> APIRouter:
    """`/registry/{kind}` and `/registry/{kind}/{name}`; `pick` names the catalogue behind them."""
    router = APIRouter(prefix=f"/registry/{kind}", tags=[kind])
    form = FORMS[kind]
    _add_reads(router, kind, model, pick, form)
    _add_create(router, kind, model, pick, examples)
    _add_changes(router, kind, model, pick, examples, form)
    return router


def _add_reads(router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R], form: Forms) -> None:
    page_model = Listing[model]  # type: ignore[valid-type]  # a type only FastAPI needs to know

    @router.get("", name=f"{kind}.list", summary=f"List {kind}", response_model=page_model)
    async def page(registry: TheRegistry, query: Paging, original: AsksOriginal) -> Listing[R] | Response:
        if original:
            return original_answer([form.listed(each.record) for each in await pick(registry).records.all()])
        return listing(await pick(registry).page(query.limit, query.cursor))

    async def read(
        registry: TheRegistry, response: Response, name: PathName, original: AsksOriginal
    ) -> R | Response:
        stored = await pick(registry).read(name)
        return original_answer(form.shown(stored.record)) if original else answer(response, stored)

    form.name(read)
    show = router.get(
        form.path,
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
        registry: TheRegistry, response: Response, record: R, idempotency_key: IdempotencyKey = None
    ) -> R:
        async def make(attempt: Attempt) -> Stored[R]:
            return await pick(registry).create(record, mine=attempt.mine)

        async def taken() -> bool:
            return await pick(registry).taken(record.name)

        store, node = registry.shelf.own, registry.shelf.node
        stored = await once(store, node, f"{kind}.create", idempotency_key, record, model, make, taken=taken)
        return answer(response, stored, f"/registry/{kind}/{stored.record.name}")

    _specialise(model, examples, create)
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
    router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples, form: Forms
) -> None:
    noun = kind[:-1]

    async def update(
        registry: TheRegistry, response: Response, name: PathName, record: R, if_match: IfMatch
    ) -> R:
        return answer(response, await pick(registry).update(name, record, if_match))

    _specialise(model, examples, update)
    form.name(update)
    replace = router.put(
        form.path,
        name=f"{kind}.update",
        summary=f"Replace a {noun}",
        response_model=model,
        responses=ETAG_HEADER,
    )
    replace(update)

    async def delete(registry: TheRegistry, name: PathName, if_match: IfMatch) -> Removed:
        await pick(registry).delete(name, if_match)
        return Removed(removed=name, detail=f"The {noun} {name!r} is removed.")

    form.name(delete)
    router.delete(form.path, name=f"{kind}.delete", summary=f"Remove an unused {noun}")(delete)


def _specialise(model: type[Named], examples: Examples, handler: Callable[..., Any]) -> None:
    """Tells FastAPI which model the type variable of the handler's body stands for."""
    handler.__annotations__["record"] = Annotated[model, Body(openapi_examples=examples)]
