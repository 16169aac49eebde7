"""The part of `gateway.MaoClient` that looks at datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .gateway_http import GatewayHttp
from .resources import compact
from .responses import json_of


class Writable(Protocol):
    """What a file's content can be written to, piece by piece: a binary file, for example."""

    def write(self, data: bytes, /) -> int: ...


class LookCalls:
    http: GatewayHttp

    def diff(
        self,
        name: str,
        before: str | None = None,
        after: str | None = None,
        *,
        path: str | None = None,
        manner: str | None = None,
        key: Sequence[str] = (),
        limit: int | None = None,
    ) -> dict[str, Any]:
        """What differs from `before` (else ground-truth) to `after` (else the node's branch).

        All files, whatever the limit of one page, unless `limit` is given; of one file the first `limit` rows
        or lines.
        """
        named = {"from": before, "to": after, "path": path, "as": manner, "limit": limit}
        params = compact({**named, "key": list(key) or None})
        answer = dict(json_of(self.http.send("GET", f"/datasets/{name}/diff", params=params)))
        cursor = answer.get("cursor")
        while cursor and limit is None:
            params["cursor"] = cursor
            more = json_of(self.http.send("GET", f"/datasets/{name}/diff", params=params))
            answer["files"] += more["files"]
            cursor = answer["cursor"] = more.get("cursor")
        return answer

    def archive(
        self,
        name: str,
        out: Writable,
        *,
        ref: str | None = None,
        path: str | None = None,
        packing: str = "tar.gz",
    ) -> int:
        """Writes a folder of the dataset (or all of it) to `out` as tar.gz or zip; the number of bytes."""
        params = compact({"ref": ref, "path": path, "format": packing})
        with self.http.stream(f"/datasets/{name}/archive", params) as response:
            return sum(out.write(piece) for piece in response.iter_raw())
