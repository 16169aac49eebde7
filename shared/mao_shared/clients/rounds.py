"""The part of `gateway.MaoClient` for rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .gateway_http import GatewayHttp
from .resources import compact
from .responses import json_of

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
