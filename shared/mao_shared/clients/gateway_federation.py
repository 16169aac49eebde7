"""The calls of MaoClient about the federation, its nodes, and the alarms and webhooks of this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mao_shared.models import (
    Alarm,
    CoreMember,
    Demotion,
    Departure,
    FederationState,
    Invitation,
    Joined,
    LogAnswer,
    Member,
    NodePart,
    NodeRuns,
    NodeState,
    Series,
    Trust,
    WebhookRequest,
    WebhookState,
)
from mao_shared.models.alarm import WebhookTest

from .gateway_http import GatewayHttp, Resource, compact, url_path
from .responses import check

ALLOW_UNSAFE = "allow_unsafe_etcd_that_ignores_key_rights"
MEMBERSHIP_TIMEOUT = 180.0  # seconds: etcd has to start, or another node to answer


class Federation:
    """The federation that this node is in, and who runs its etcd."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def get(self) -> FederationState:
        """Raises NotFound (`no-federation`) for a node that stands alone."""
        return self.http.get("/federation", FederationState)

    def members(self) -> list[NodeState]:
        return self.http.items("/federation/members", NodeState)

    def create(self, name: str, *, allow_unsafe: bool = False) -> FederationState:
        """Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        body = {"name": name, **_unsafe_flag(allow_unsafe)}
        return self.http.call("POST", "/federation", FederationState, json=body, timeout=MEMBERSHIP_TIMEOUT)

    def invite(self, node: str, valid: float | None = None) -> Invitation:
        """`valid`: seconds; the node's default is a day."""
        path, body = "/federation/invitations", compact({"node": node, "valid": valid})
        return self.http.call("POST", path, Invitation, json=body, timeout=MEMBERSHIP_TIMEOUT)

    def join(self, token: str, *, allow_unsafe: bool = False) -> Joined:
        """Raises Conflict: `names-clash`, whose `clashes` lists what cannot be joined; `etcd-unsafe` unless
        `allow_unsafe`."""
        body = {"token": token, **_unsafe_flag(allow_unsafe)}
        return self.http.call("POST", "/federation/join", Joined, json=body, timeout=MEMBERSHIP_TIMEOUT)

    def leave(self, *, force: bool = False) -> Departure:
        params = {"force": "true"} if force else {}
        return self.http.call("DELETE", "/federation", Departure, params=params, timeout=MEMBERSHIP_TIMEOUT)

    def remove(self, node: str) -> None:
        self.http.execute("DELETE", _member(node), timeout=MEMBERSHIP_TIMEOUT)

    def promote(self, node: str, *, allow_unsafe: bool = False) -> CoreMember:
        """Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        options: dict[str, Any] = {"params": {ALLOW_UNSAFE: "true"} if allow_unsafe else {}}
        path = _member(node, "promote")
        return self.http.call("POST", path, CoreMember, timeout=MEMBERSHIP_TIMEOUT, **options)

    def demote(self, node: str) -> Demotion:
        return self.http.call("POST", _member(node, "demote"), Demotion, timeout=MEMBERSHIP_TIMEOUT)


def _unsafe_flag(unsafe: bool) -> dict[str, bool]:
    """Not named unless it is asked for: the version before knows no such field."""
    return {ALLOW_UNSAFE: True} if unsafe else {}


def _member(node: str, *more: str) -> str:
    return url_path("federation", "members", node, *more)


class Nodes(Resource[Member]):
    """Nodes of the federation: presence, runs and logs as this node sees them, and whom it trusts."""

    def __init__(self, http: GatewayHttp) -> None:
        super().__init__(http, "/registry/nodes", Member)

    def states(self) -> list[NodePart]:
        """All nodes of the federation, present or not."""
        return list(self.http.pages("/federation/nodes", NodePart))

    def state(self, name: str) -> NodePart:
        return self.http.get(url_path("federation", "nodes", name), NodePart)

    def runs(self, pipeline: str | None = None) -> list[NodeRuns]:
        """Each node's runs of a pipeline, or of all, and who is late."""
        return list(self.http.pages("/federation/runs", NodeRuns, {"pipeline": pipeline}))

    def log(self, node: str, run: str, *, step: str | None = None, tail: int | None = None) -> LogAnswer:
        """The end of a log on another node; Forbidden when that one does not share its logs."""
        params = {"node": node, "run": run, "step": step, "tail": tail}
        return self.http.get("/federation/logs", LogAnswer, params)

    def trusted(self) -> list[Trust]:
        """The nodes whose operators' changes this node applies without asking."""
        return self.http.items("/trusted", Trust)

    def trust(self, node: str) -> Trust:
        return self.http.call("PUT", url_path("trusted", node), Trust)

    def untrust(self, node: str) -> None:
        """Raises NotFound when it is not trusted."""
        self.http.execute("DELETE", url_path("trusted", node))

    def signers(self) -> str:
        """An allowed-signers file with which git checks the federation's commits."""
        response = self.http.send("GET", "/signers")
        check(response)
        return response.text


class Alarms:
    """Alarms of this node, and the series of control metrics behind them."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(self, *, open_only: bool = True) -> Iterator[Alarm]:
        """The alarms that nobody has acknowledged; all with `open_only=False`."""
        return self.http.pages("/alarms", Alarm, {"open": "true" if open_only else None})

    def get(self, alarm_id: str) -> Alarm:
        return self.http.get(url_path("alarms", alarm_id), Alarm)

    def acknowledge(self, alarm_id: str, by: str = "", note: str = "") -> Alarm:
        path = url_path("alarms", alarm_id, "acknowledge")
        return self.http.call("POST", path, Alarm, json={"by": by, "note": note})

    def all_series(self) -> Iterator[Series]:
        """Every control metric with its newest point."""
        return iter(self.http.items("/series", Series))

    def series(self, pipeline: str, step: str, metric: str) -> Series:
        return self.http.get(url_path("series", pipeline, step, metric), Series)


class Webhooks:
    """Addresses that all alarms are sent to."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(self) -> Iterator[WebhookState]:
        return iter(self.http.items("/webhooks", WebhookState))

    def get(self, name: str) -> WebhookState:
        return self.http.get(url_path("webhooks", name), WebhookState)

    def add(self, request: WebhookRequest) -> WebhookState:
        """The state with the `secret`, which is not shown again."""
        document = request.model_dump(mode="json", exclude_none=True)
        return self.http.call("POST", "/webhooks", WebhookState, json=document)

    def remove(self, name: str) -> None:
        self.http.execute("DELETE", url_path("webhooks", name))

    def test(self, name: str) -> WebhookTest:
        """Sends a test message now."""
        return self.http.call("POST", url_path("webhooks", name, "test"), WebhookTest)
