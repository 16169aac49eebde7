"""The five calls of one kind of record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Response

from mao_registry.catalogue import Catalogue
from mao_registry.registry import Registry
from mao_shared.keys import RegistryKind
from mao_shared.models import Listing, Named
from mao_shared.store import Stored
from mao_shared.web.http import IdempotencyKey, IfMatch, Paging
from mao_shared.web.idempotency import Attempt, once

from .common import CREATED_HEADERS, ETAG_HEADER, PathName, TheRegistry, answer, listing
from .examples import Examples

R = TypeVar("R", bound=Named)
Pick = Callable[[Registry], Catalogue[R]]


def catalogue_router(kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples) -> APIRouter:
    """`/registry/{kind}` and `/registry/{kind}/{name}`; `pick` names the catalogue behind them."""
    router = APIRouter(prefix=f"/registry/{kind}", tags=[kind])
    _add_reads(router, kind, model, pick)
    _add_create(router, kind, model, pick, examples)
    _add_changes(router, kind, model, pick, examples)
    return router


def _add_reads(router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R]) -> None:
    page_model = Listing[model]  # type: ignore[valid-type]  # a type only FastAPI needs to know

    @router.get("", name=f"{kind}.list", summary=f"List {kind}", response_model=page_model)
    async def page(registry: TheRegistry, query: Paging) -> Listing[R]:
        return listing(await pick(registry).page(query.limit, query.cursor))

    @router.get(
        "/{name}",
        name=f"{kind}.get",
        summary=f"Show a {kind[:-1]}",
        response_model=model,
        responses=ETAG_HEADER,
    )
    async def read(registry: TheRegistry, response: Response, name: PathName) -> R:
        return answer(response, await pick(registry).read(name))


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
    router: APIRouter, kind: RegistryKind, model: type[R], pick: Pick[R], examples: Examples
) -> None:
    noun = kind[:-1]

    async def update(
        registry: TheRegistry, response: Response, name: PathName, record: R, if_match: IfMatch
    ) -> R:
        return answer(response, await pick(registry).update(name, record, if_match))

    _specialise(model, examples, update)
    replace = router.put(
        "/{name}",
        name=f"{kind}.update",
        summary=f"Replace a {noun}",
        response_model=model,
        responses=ETAG_HEADER,
    )
    replace(update)

    @router.delete("/{name}", name=f"{kind}.delete", summary=f"Remove an unused {noun}", status_code=204)
    async def delete(registry: TheRegistry, name: PathName, if_match: IfMatch) -> None:
        await pick(registry).delete(name, if_match)


def _specialise(model: type[Named], examples: Examples, handler: Callable[..., Any]) -> None:
    """Tells FastAPI which model the type variable of the handler's body stands for."""
    handler.__annotations__["record"] = Annotated[model, Body(openapi_examples=examples)]
