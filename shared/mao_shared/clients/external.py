"""The part of `gateway.MaoClient` for data of programs outside."""

from __future__ import annotations

import json
from typing import Any

from mao_shared.json_text import check_json, render_json
from mao_shared.models.common import STORED
from mao_shared.models.external import ExternalState, Insight, Receipt, RemoteState

from .gateway_http import GatewayHttp
from .resources import compact
from .responses import record_of, spelt_json_of


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
        return _insight(spelt_json_of(self.http.send("POST", "/read", json=body)))

    def insights(self, key: str | None = None, *, dataset: str | None = None) -> list[dict[str, Any]]:
        """All that tools left, on all nodes; `key` narrows it."""
        answer = self.http.send("POST", "/inspect", json=compact({"key": key, "dataset": dataset}))
        return [_insight(each) for each in spelt_json_of(answer)["items"]]

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
