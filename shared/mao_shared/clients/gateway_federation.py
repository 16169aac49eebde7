"""The calls of MaoClient about the federation: membership, consent, other nodes, alarms, webhooks.

The part of `gateway.MaoClient` that is about the federation itself.

The part of `gateway.MaoClient` that is about consent: what is pending, approvals, trust.

The part of `gateway.MaoClient` that is about other nodes.

The part of `gateway.MaoClient` that is about alarms, series of control metrics, and webhooks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mao_shared.models import (
    CoreMember,
    Demotion,
    Departure,
    Enrolment,
    FederationState,
    Invitation,
    Joined,
    LogAnswer,
    NodePart,
    NodeRuns,
    NodeState,
    PipelineDiff,
    Trust,
    WebhookRequest,
)
from mao_shared.models.common import STORED

from .gateway_http import GatewayHttp, compact
from .responses import check, json_of, record_of
from .services import PULL_TIMEOUT

ALLOW_UNSAFE = "allow_unsafe_etcd_that_ignores_key_rights"

PATIENCE = 180.0  # seconds: etcd has to start, or another node to answer


class FederationCalls:
    http: GatewayHttp

    def federation(self) -> FederationState:
        """Raises NotFound (`no-federation`) for a node that stands alone."""
        return record_of(self.http.send("GET", "/federation"), FederationState)

    def federation_nodes(self) -> list[NodeState]:
        document = json_of(self.http.send("GET", "/federation/members"))
        return [NodeState.model_validate(item, context=STORED) for item in document["items"]]

    def create_federation(self, name: str, *, allow_unsafe: bool = False) -> FederationState:
        """Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        body = {"name": name, **_allowing(allow_unsafe)}
        return record_of(self._send("POST", "/federation", json=body), FederationState)

    def invite_node(self, node: str, valid: float | None = None) -> Invitation:
        """`valid`: seconds; the node's default is a day."""
        body = {"node": node} | ({} if valid is None else {"valid": valid})
        return record_of(self._send("POST", "/federation/invitations", json=body), Invitation)

    def join_federation(self, token: str, *, allow_unsafe: bool = False) -> Joined:
        """Raises Conflict: `names-clash`, whose `clashes` lists what cannot be joined; `etcd-unsafe` unless
        `allow_unsafe`."""
        body = {"token": token, **_allowing(allow_unsafe)}
        return record_of(self._send("POST", "/federation/join", json=body), Joined)

    def leave_federation(self, *, force: bool = False) -> Departure:
        params = {"force": "true"} if force else {}
        return record_of(self._send("DELETE", "/federation", params=params), Departure)

    def remove_node(self, node: str) -> None:
        check(self._send("DELETE", _path(node)))

    def promote_node(self, node: str, *, allow_unsafe: bool = False) -> CoreMember:
        """Raises Conflict (`etcd-unsafe`) unless `allow_unsafe`."""
        params = {ALLOW_UNSAFE: "true"} if allow_unsafe else {}
        return record_of(self._send("POST", f"{_path(node)}/promote", params=params), CoreMember)

    def demote_node(self, node: str) -> Demotion:
        return record_of(self._send("POST", f"{_path(node)}/demote"), Demotion)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        return self.http.send(method, path, timeout=PATIENCE, **options)


def _allowing(unsafe: bool) -> dict[str, bool]:
    """Not named unless it is asked for: the version before knows no such field."""
    return {ALLOW_UNSAFE: True} if unsafe else {}


def _path(node: str) -> str:
    return f"/federation/members/{quote(node, safe='')}"


class ConsentCalls:
    http: GatewayHttp

    def pipeline_diff(self, name: str) -> PipelineDiff:
        """What runs on the node against what is registered."""
        return record_of(self.http.send("GET", f"/pipeline/{quote(name, safe='')}/diff"), PipelineDiff)

    def approve(self, name: str, definition: str, agree: list[str]) -> Enrolment:
        """Takes over what was shown as `definition`; PreconditionFailed when it is another by now."""
        body = {"definition": definition, "agree": agree}
        path = f"/pipeline/{quote(name, safe='')}/approve"
        return record_of(self.http.send("POST", path, json=body, timeout=PULL_TIMEOUT), Enrolment)

    def trusted(self) -> list[Trust]:
        """The nodes whose operators' changes the node takes over unasked."""
        return [Trust.model_validate(each, context=STORED) for each in self.http.one_page("/trusted")]

    def trust(self, node: str) -> Trust:
        return record_of(self.http.send("PUT", f"/trusted/{quote(node, safe='')}"), Trust)

    def untrust(self, node: str) -> None:
        """Raises NotFound when it is not trusted."""
        check(self.http.send("DELETE", f"/trusted/{quote(node, safe='')}"))


class NodeCalls:
    http: GatewayHttp

    def node_states(self) -> list[NodePart]:
        """All nodes of the federation, present or not."""
        return [
            NodePart.model_validate(each, context=STORED) for each in self.http.pages("/federation/nodes")
        ]

    def node_state(self, name: str) -> NodePart:
        return record_of(self.http.send("GET", f"/federation/nodes/{quote(name, safe='')}"), NodePart)

    def node_runs(self, pipeline: str | None = None) -> list[NodeRuns]:
        """Each node's runs of a pipeline, or of all, and who is late."""
        pages = self.http.pages("/federation/runs", compact({"pipeline": pipeline}))
        return [NodeRuns.model_validate(each, context=STORED) for each in pages]

    def node_log(self, node: str, run: str, *, step: str | None = None, tail: int | None = None) -> LogAnswer:
        """The end of a log on another node; Forbidden when that one does not share its logs."""
        params = compact({"node": node, "run": run, "step": step, "tail": tail})
        return record_of(self.http.send("GET", "/federation/logs", params=params), LogAnswer)


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
