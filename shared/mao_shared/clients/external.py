"""The part of `gateway.MaoClient` for data of programs outside."""

from __future__ import annotations

from typing import Any

from mao_shared.models.common import STORED
from mao_shared.models.external import ExternalState, Insight, Receipt, RemoteState

from .answers import json_of, record_of
from .gateway_http import GatewayHttp
from .resources import compact


class ExternalCalls:
    http: GatewayHttp

    def write(self, key: str, value: Any, *, idempotency_key: str | None = None) -> Receipt:
        """Hands a value over; it is on the node's disk when this returns."""
        headers = compact({"Idempotency-Key": idempotency_key})
        body = {"key": key, "value": value}
        return record_of(self.http.send("POST", "/write", json=body, headers=headers), Receipt)

    def read_insight(self, key: str, *, dataset: str | None = None) -> Insight:
        body = compact({"key": key, "dataset": dataset})
        return record_of(self.http.send("POST", "/read", json=body), Insight)

    def insights(self, key: str | None = None, *, dataset: str | None = None) -> list[Insight]:
        """All that tools left, on all nodes; `key` narrows it."""
        answer = self.http.send("POST", "/inspect", json=compact({"key": key, "dataset": dataset}))
        return [Insight.model_validate(item, context=STORED) for item in json_of(answer)["items"]]

    def external_state(self, dataset: str) -> ExternalState:
        return record_of(self.http.send("GET", f"/datasets/{dataset}/external"), ExternalState)

    def check_remote(self, master: str) -> RemoteState:
        """Raises InvalidInput, Forbidden or RemoteUnavailable when it cannot be a dataset's remote."""
        return record_of(self.http.send("POST", "/remotes/check", json={"master": master}), RemoteState)
