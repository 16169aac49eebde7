"""The calls of MaoClient about data: contents, evidence, rounds, external data.

The part of `gateway.MaoClient` that looks at datasets.

The part of `gateway.MaoClient` for evidence of runs.

The part of `gateway.MaoClient` for rounds.

The part of `gateway.MaoClient` for data of programs outside.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from mao_shared.json_text import check_json, render_json
from mao_shared.models.common import STORED
from mao_shared.models.external import ExternalState, Insight, Receipt, RemoteState

from .gateway_http import GatewayHttp, compact
from .responses import json_of, record_of, verbatim_json_of


class BinaryWriter(Protocol):
    """What a file's content can be written to, piece by piece: a binary file, for example."""

    def write(self, data: bytes, /) -> int: ...


class ContentCalls:
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
        out: BinaryWriter,
        *,
        ref: str | None = None,
        path: str | None = None,
        packing: str = "tar.gz",
    ) -> int:
        """Writes a folder of the dataset (or all of it) to `out` as tar.gz or zip; the number of bytes."""
        params = compact({"ref": ref, "path": path, "format": packing})
        with self.http.stream(f"/datasets/{name}/archive", params) as response:
            return sum(out.write(piece) for piece in response.iter_raw())


READING = 900.0  # seconds; every byte of a run is read before the first one of the answer comes


class EvidenceCalls:
    http: GatewayHttp

    def crate(self, run_id: str, out: BinaryWriter, *, data: bool = True) -> int:
        """Writes the run's RO-Crate, a zip file, to `out`; the number of bytes."""
        params = {"data": "true" if data else "false"}
        with self.http.stream(f"/runs/{run_id}/crate", params, timeout=READING) as response:
            return sum(out.write(piece) for piece in response.iter_raw())

    def crate_metadata(self, run_id: str) -> dict[str, Any]:
        """What the crate says: all its files with sizes and digests, as JSON-LD."""
        return dict(json_of(self.http.send("GET", f"/runs/{run_id}/crate/metadata", timeout=READING)))

    def verify_run(self, run_id: str) -> dict[str, Any]:
        """`ok`, how much was read, and `faults`: what is not as the run's record says."""
        return dict(json_of(self.http.send("GET", f"/runs/{run_id}/verify", timeout=READING)))


COMPUTING = 900.0  # seconds; an audit reads and decides all that differed

LATEST = "latest"


class RoundCalls:
    http: GatewayHttp

    def rounds(self, dataset: str, limit: int) -> list[dict[str, Any]]:
        """The newest decided rounds of a dataset, the newest first."""
        return self._all(f"/datasets/{dataset}/rounds", {}, limit)

    def strays(self, dataset: str) -> dict[str, Any] | None:
        """What commits of ground truth no round made; None before the first round."""
        answer = json_of(self.http.send("GET", f"/datasets/{dataset}/rounds", params={"limit": 1}))
        found = answer.get("strays")
        return None if found is None else dict(found)

    def live_rounds(
        self, dataset: str | None = None, phase: str | None = None, limit: int = 100
    ) -> tuple[list[dict[str, Any]], int]:
        """Rounds as they stand now, also those that are not decided, the newest first; and how many snapshots
        of this node have still to be announced."""
        answers = list(self._pages("/rounds", {"dataset": dataset, "phase": phase}, limit))
        return _items(answers), int(answers[0].get("waiting", 0))

    def round(self, dataset: str, round_id: str | None) -> dict[str, Any]:
        """`commit` and `evidence` of a round (by the beginning of its id), else of the newest."""
        return self._ask(dataset, round_id, "")

    def cells(self, dataset: str, round_id: str | None, file: str | None, limit: int) -> list[dict[str, Any]]:
        """The first cells over which nodes differed, with every node's value."""
        path = f"/datasets/{dataset}/rounds/{round_id or LATEST}/cells"
        return self._all(path, {"file": file}, limit)

    def cell(self, dataset: str, round_id: str | None, file: str, key: str, field: str) -> dict[str, Any]:
        """How one value was decided."""
        return self._ask(dataset, round_id, "/cell", {"file": file, "key": key, "field": field})

    def audit(self, dataset: str, round_id: str | None) -> dict[str, Any]:
        """`ok` when the round, computed again, gives the same commit; else what differs."""
        return self._ask(dataset, round_id, "/audit", timeout=COMPUTING)

    def ranking(self, dataset: str, rounds: int) -> dict[str, Any]:
        """Nodes by how unusually often they differ from what was decided in the last rounds."""
        return dict(json_of(self.http.send("GET", f"/datasets/{dataset}/ranking", params={"rounds": rounds})))

    def spikes(self, dataset: str, rounds: int) -> dict[str, Any]:
        """Spikes in the control metrics of the last rounds, and whose they are."""
        return dict(json_of(self.http.send("GET", f"/datasets/{dataset}/spikes", params={"rounds": rounds})))

    def _ask(
        self,
        dataset: str,
        round_id: str | None,
        what: str,
        params: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        path = f"/datasets/{dataset}/rounds/{round_id or LATEST}{what}"
        return dict(
            json_of(self.http.send("GET", path, params=params or {}, **compact({"timeout": timeout})))
        )

    def _all(self, path: str, params: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        return _items(self._pages(path, params, limit))

    def _pages(self, path: str, params: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
        """At least one answer."""
        cursor: str | None = None
        while limit > 0:
            asked = compact({**params, "limit": min(limit, 1000), "cursor": cursor})
            answer = json_of(self.http.send("GET", path, params=asked))
            yield answer
            limit -= len(answer["items"])
            cursor = answer.get("cursor")
            if cursor is None:
                break


def _items(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for answer in answers for item in answer["items"]]


class ExternalCalls:
    http: GatewayHttp

    def write(self, key: str, value: Any, *, idempotency_key: str | None = None) -> Receipt:
        """Hands a value over; it is on the node's disk when this returns."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = {"key": key, "value": value}
        return record_of(self.http.send("POST", "/write", json=body, headers=headers), Receipt)

    def write_json(self, key: str, text: str, *, idempotency_key: str | None = None) -> Receipt:
        """As `write`, of JSON text, which goes as it is spelt. Raises ValueError for other text."""
        check_json(text)
        headers = compact({"Idempotency-Key": idempotency_key, "Content-Type": "application/json"})
        body = f'{{"key":{json.dumps(key)},"value":{text}}}'.encode()
        return record_of(self.http.send("POST", "/write", content=body, headers=headers), Receipt)

    def read_insight(self, key: str, *, dataset: str | None = None) -> dict[str, Any]:
        """An Insight's document; numbers in its `value` are as `json_text.parse_json` keeps them."""
        body = compact({"key": key, "dataset": dataset})
        return _insight(verbatim_json_of(self.http.send("POST", "/read", json=body)))

    def insights(self, key: str | None = None, *, dataset: str | None = None) -> list[dict[str, Any]]:
        """All that tools left, on all nodes; `key` narrows it."""
        answer = self.http.send("POST", "/inspect", json=compact({"key": key, "dataset": dataset}))
        return [_insight(each) for each in verbatim_json_of(answer)["items"]]

    def external_state(self, dataset: str) -> ExternalState:
        return record_of(self.http.send("GET", f"/datasets/{dataset}/external"), ExternalState)

    def check_remote(self, master: str) -> RemoteState:
        """Raises InvalidInput, Forbidden or RemoteUnavailable when it cannot be a dataset's remote."""
        return record_of(self.http.send("POST", "/remotes/check", json={"master": master}), RemoteState)


def _insight(document: dict[str, Any]) -> dict[str, Any]:
    """With what is missing in the answer of another version, and only the value's numbers kept as spelt."""
    others = {name: field for name, field in document.items() if name != "value"}
    known = Insight.model_validate_json(render_json(others), context=STORED).model_dump(mode="json")
    return known | {"value": document.get("value")}
