"""The five calls of one kind of record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Response

from mao_registry.catalogue import Catalogue
from mao_registry.registry import Registry
from mao_shared.http import IdempotencyKey, IfMatch, Paging
from mao_shared.idempotency import Attempt, once
from mao_shared.keys import RegistryKind
from mao_shared.models import Listing, Named
from mao_shared.store import Stored

from .common import ETAG_HEADER, PathName, TheRegistry, answer, listing
from .examples import Examples

R = TypeVar("R", bound=Named)


def catalogue_router(
    kind: RegistryKind, model: type[R], pick: Callable[[Registry], Catalogue[R]], examples: Examples
) -> APIRouter:
    """`/registry/{kind}` and `/registry/{kind}/{name}`; `pick` names the catalogue behind them."""
    router = APIRouter(prefix=f"/registry/{kind}", tags=[kind])
    noun = kind[:-1]

    async def create(
        registry: TheRegistry, response: Response, record: R, idempotency_key: IdempotencyKey = None
    ) -> R:
        async def make(attempt: Attempt) -> Stored[R]:
            return await pick(registry).create(record, repeated=attempt.repeated)

        shelf = registry.shelf
        stored = await once(shelf.own, shelf.node, f"{kind}.create", idempotency_key, record, model, make)
        return answer(response, stored, f"/registry/{kind}/{stored.record.name}")

    async def read(registry: TheRegistry, response: Response, name: PathName) -> R:
        return answer(response, await pick(registry).read(name))

    async def page(registry: TheRegistry, query: Paging) -> Listing[R]:
        return listing(await pick(registry).page(query.limit, query.cursor))

    async def update(
        registry: TheRegistry, response: Response, name: PathName, record: R, if_match: IfMatch
    ) -> R:
        return answer(response, await pick(registry).update(name, record, if_match))

    async def delete(registry: TheRegistry, name: PathName, if_match: IfMatch) -> None:
        await pick(registry).delete(name, if_match)

    _specialise(model, examples, create, update)
    typed: dict[str, Any] = {"response_model": model, "responses": ETAG_HEADER}
    add = router.add_api_route
    add(
        "",
        create,
        methods=["POST"],
        name=f"{kind}.create",
        summary=f"Register a {noun}",
        status_code=201,
        response_model=model,
    )
    add("", page, methods=["GET"], name=f"{kind}.list", summary=f"List {kind}", response_model=Listing[model])  # type: ignore[valid-type]
    add("/{name}", read, methods=["GET"], name=f"{kind}.get", summary=f"Show a {noun}", **typed)
    add("/{name}", update, methods=["PUT"], name=f"{kind}.update", summary=f"Replace a {noun}", **typed)
    add(
        "/{name}",
        delete,
        methods=["DELETE"],
        name=f"{kind}.delete",
        summary=f"Remove a {noun} that nothing uses",
        status_code=204,
    )
    return router


def _specialise(model: type[Named], examples: Examples, *handlers: Callable[..., Any]) -> None:
    """Tells FastAPI which model the type variable of these handlers' bodies stands for."""
    for handler in handlers:
        handler.__annotations__["record"] = Annotated[model, Body(openapi_examples=examples)]
