"""The five calls that every kind of record has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from mao_shared.models import Record
from mao_shared.models.common import STORED

from .gateway_http import GatewayHttp
from .responses import check, record_of, revision_of

R = TypeVar("R", bound=Record)


def compact(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Versioned(Generic[R]):
    """A record with the revision of its ETag, the guard of the next write."""

    record: R
    revision: int | None


class Resource(Generic[R]):
    """Records of one kind under one path. `revision` guards a write: PreconditionFailed if it is old."""

    def __init__(self, http: GatewayHttp, path: str, model: type[R]) -> None:
        self.path = path
        self._http = http
        self._model = model

    def list(self) -> Iterator[R]:
        """In order of their names, page by page as far as the caller reads."""
        for item in self._http.pages(self.path):
            yield self._model.model_validate(item, context=STORED)

    def get(self, name: str) -> Versioned[R]:
        return self._versioned(self._http.send("GET", self._at(name)))

    def create(self, record: R, *, idempotency_key: str | None = None) -> Versioned[R]:
        """Raises AlreadyExists when the name is taken."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = record.model_dump(mode="json", exclude_none=True)
        return self._versioned(self._http.send("POST", self.path, json=body, headers=headers))

    def replace(self, name: str, record: R, revision: int | None = None) -> Versioned[R]:
        body = record.model_dump(mode="json", exclude_none=True)
        response = self._http.send("PUT", self._at(name), json=body, headers=_guard(revision))
        return self._versioned(response)

    def delete(self, name: str, revision: int | None = None) -> None:
        """Raises StillReferenced with who refers to it."""
        check(self._http.send("DELETE", self._at(name), headers=_guard(revision)))

    def _at(self, name: str) -> str:
        return f"{self.path}/{quote(name, safe='')}"

    def _versioned(self, response: httpx.Response) -> Versioned[R]:
        return Versioned(record_of(response, self._model), revision_of(response))


def _guard(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}
