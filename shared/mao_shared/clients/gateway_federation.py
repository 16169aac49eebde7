"""MaoClient's calls about the federation, its nodes, and this node's alarms and webhooks."""

from __future__ import annotations

from collections.abc import Iterator

from mao_shared import models
from mao_shared.models.alarm import AcknowledgeBody, WebhookTest

from .gateway_http import GatewayHttp, Resource, url_path
from .responses import check, dump_body, request_body

ALLOW_UNSAFE = "allow_unsafe_etcd_that_ignores_key_rights"
JOIN_TIMEOUT = 180.0  # seconds: etcd has to start, or another node to answer


class FederationCalls:
    """The federation of this node, its members and its etcd."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def get(self) -> models.FederationState:
        """Return the state of the federation. Raises NotFound (`no-federation`) without one."""
        return self.http.get("/federation", models.FederationState)

    def members(self) -> list[models.NodeState]:
        return self.http.items("/federation/members", models.NodeState)

    def create(self, name: str, *, allow_unsafe: bool = False) -> models.FederationState:
        """Create a federation. Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        body = request_body(models.FederationRequest, name=name, **_unsafe_flag(allow_unsafe))
        return self.http.call("POST", "/federation", models.FederationState, json=body, timeout=JOIN_TIMEOUT)

    def invite(self, node: str, valid: float | None = None) -> models.Invitation:
        """Invite a node. `valid`: seconds; the node's default is a day."""
        body = request_body(models.InvitationRequest, node=node, valid=valid)
        return self.http.call(
            "POST", "/federation/invitations", models.Invitation, json=body, timeout=JOIN_TIMEOUT
        )

    def join(self, token: str, *, allow_unsafe: bool = False) -> models.Joined:
        """Join a federation.

        Raises Conflict: `names-clash`, with the records that conflict in `clashes`; `etcd-unsafe` unless
        `allow_unsafe`.
        """
        body = request_body(models.JoinRequest, token=token, **_unsafe_flag(allow_unsafe))
        return self.http.call("POST", "/federation/join", models.Joined, json=body, timeout=JOIN_TIMEOUT)

    def leave(self, *, force: bool = False) -> models.Departure:
        params = {"force": "true"} if force else {}
        return self.http.call("DELETE", "/federation", models.Departure, params=params, timeout=JOIN_TIMEOUT)

    def remove(self, node: str) -> None:
        self.http.execute("DELETE", _member(node), timeout=JOIN_TIMEOUT)

    def promote(self, node: str, *, allow_unsafe: bool = False) -> models.CoreMember:
        """Promote a node to a core node. Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        path, params = _member(node, "promote"), {ALLOW_UNSAFE: "true"} if allow_unsafe else {}
        return self.http.call("POST", path, models.CoreMember, params=params, timeout=JOIN_TIMEOUT)

    def demote(self, node: str) -> models.Demotion:
        return self.http.call("POST", _member(node, "demote"), models.Demotion, timeout=JOIN_TIMEOUT)


def _unsafe_flag(unsafe: bool) -> dict[str, bool]:
    """Return the field only if it is set: older versions do not know it."""
    return {ALLOW_UNSAFE: True} if unsafe else {}


def _member(node: str, *more: str) -> str:
    return url_path("federation", "members", node, *more)


class NodeCalls(Resource[models.Member]):
    """Nodes of the federation: presence, runs and logs as this node sees them, trust."""

    def __init__(self, http: GatewayHttp) -> None:
        super().__init__(http, "/registry/nodes", models.Member)

    def states(self) -> list[models.NodePart]:
        """Return all nodes of the federation, present or not."""
        return list(self.http.pages("/federation/nodes", models.NodePart))

    def state(self, name: str) -> models.NodePart:
        return self.http.get(url_path("federation", "nodes", name), models.NodePart)

    def runs(self, pipeline: str | None = None) -> list[models.NodeRuns]:
        """Return each node's runs of a pipeline, or of all, and whether it is late."""
        return list(self.http.pages("/federation/runs", models.NodeRuns, {"pipeline": pipeline}))

    def log(
        self, node: str, run: str, *, step: str | None = None, tail: int | None = None
    ) -> models.LogAnswer:
        """Return the end of a log on another node. Raises Forbidden if that node does not share its logs."""
        params = {"node": node, "run": run, "step": step, "tail": tail}
        return self.http.get("/federation/logs", models.LogAnswer, params)

    def trusted(self) -> list[models.Trust]:
        """Return the nodes whose operators' changes this node applies without asking."""
        return self.http.items("/trusted", models.Trust)

    def trust(self, node: str) -> models.Trust:
        return self.http.call("PUT", url_path("trusted", node), models.Trust)

    def untrust(self, node: str) -> None:
        """Stop trusting a node. Raises NotFound if it is not trusted."""
        self.http.execute("DELETE", url_path("trusted", node))

    def signers(self) -> str:
        """Return an allowed-signers file with which git verifies the federation's commits."""
        response = self.http.send("GET", "/signers")
        check(response)
        return response.text


class AlarmCalls:
    """Alarms of this node, and the control metrics behind them."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(self, *, open_only: bool = True) -> Iterator[models.Alarm]:
        """Yield the unacknowledged alarms; all with `open_only=False`."""
        return self.http.pages("/alarms", models.Alarm, {"open": "true" if open_only else None})

    def get(self, alarm_id: str) -> models.Alarm:
        return self.http.get(url_path("alarms", alarm_id), models.Alarm)

    def acknowledge(self, alarm_id: str, by: str = "", note: str = "") -> models.Alarm:
        path = url_path("alarms", alarm_id, "acknowledge")
        return self.http.call(
            "POST", path, models.Alarm, json=request_body(AcknowledgeBody, by=by, note=note)
        )

    def all_series(self) -> Iterator[models.Series]:
        """Return every control metric with its newest point."""
        return iter(self.http.items("/series", models.Series))

    def series(self, pipeline: str, step: str, metric: str) -> models.Series:
        return self.http.get(url_path("series", pipeline, step, metric), models.Series)


class WebhookCalls:
    """Addresses that alarms are sent to."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(self) -> Iterator[models.WebhookState]:
        return iter(self.http.items("/webhooks", models.WebhookState))

    def get(self, name: str) -> models.WebhookState:
        return self.http.get(url_path("webhooks", name), models.WebhookState)

    def add(self, request: models.WebhookRequest) -> models.WebhookState:
        """Add a webhook. The response has its `secret`, which is not shown again."""
        return self.http.call("POST", "/webhooks", models.WebhookState, json=dump_body(request))

    def remove(self, name: str) -> None:
        self.http.execute("DELETE", url_path("webhooks", name))

    def test(self, name: str) -> WebhookTest:
        """Send a test message now."""
        return self.http.call("POST", url_path("webhooks", name, "test"), WebhookTest)
