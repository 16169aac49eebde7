"""The part of `gateway.MaoClient` that is about alarms, series of control metrics, and webhooks."""

from __future__ import annotations

from typing import Any

from mao_shared.models import WebhookRequest

from .gateway_http import GatewayHttp
from .responses import json_of


class AlarmCalls:
    http: GatewayHttp

    def alarms(self, *, open_only: bool = True) -> list[dict[str, Any]]:
        """The alarms that nobody has acknowledged; all with `open_only=False`."""
        return list(self.http.pages("/alarms", {"open": "true"} if open_only else {}))

    def alarm(self, alarm_id: str) -> dict[str, Any]:
        return dict(json_of(self.http.send("GET", f"/alarms/{alarm_id}")))

    def acknowledge(self, alarm_id: str, by: str = "", note: str = "") -> dict[str, Any]:
        body = {"by": by, "note": note}
        return dict(json_of(self.http.send("POST", f"/alarms/{alarm_id}/acknowledge", json=body)))

    def all_series(self) -> list[dict[str, Any]]:
        """Every control metric with its newest point."""
        return self.http.one_page("/series")

    def series(self, pipeline: str, step: str, metric: str) -> dict[str, Any]:
        return dict(json_of(self.http.send("GET", f"/series/{pipeline}/{step}/{metric}")))

    def webhooks(self) -> list[dict[str, Any]]:
        return self.http.one_page("/webhooks")

    def webhook(self, name: str) -> dict[str, Any]:
        return dict(json_of(self.http.send("GET", f"/webhooks/{name}")))

    def add_webhook(self, request: WebhookRequest) -> dict[str, Any]:
        """The state with the `secret`, which is never told again."""
        document = request.model_dump(mode="json", exclude_none=True)
        return dict(json_of(self.http.send("POST", "/webhooks", json=document)))

    def remove_webhook(self, name: str) -> None:
        self.http.send("DELETE", f"/webhooks/{name}")

    def test_webhook(self, name: str) -> dict[str, Any]:
        return dict(json_of(self.http.send("POST", f"/webhooks/{name}/test")))
