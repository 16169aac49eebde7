"""The part of `gateway.MaoClient` that is about the federation itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mao_shared.models import CoreMember, Demotion, Departure, FederationState, Invitation, Joined, NodeState
from mao_shared.models.common import STORED

from .answers import check, json_of, record_of
from .gateway_http import GatewayHttp

PATIENCE = 180.0  # seconds: etcd has to start, or another node to answer


class FederationCalls:
    http: GatewayHttp

    def federation(self) -> FederationState:
        """Raises NotFound (`no-federation`) for a node that stands alone."""
        return record_of(self.http.send("GET", "/federation"), FederationState)

    def federation_nodes(self) -> list[NodeState]:
        document = json_of(self.http.send("GET", "/federation/members"))
        return [NodeState.model_validate(item, context=STORED) for item in document["items"]]

    def create_federation(self, name: str) -> FederationState:
        return record_of(self._send("POST", "/federation", json={"name": name}), FederationState)

    def invite_node(self, node: str, valid: float | None = None) -> Invitation:
        """`valid`: seconds; the node's default is a day."""
        body = {"node": node} | ({} if valid is None else {"valid": valid})
        return record_of(self._send("POST", "/federation/invitations", json=body), Invitation)

    def join_federation(self, token: str) -> Joined:
        """Raises Conflict (`names-clash`) whose `clashes` lists what cannot be joined."""
        return record_of(self._send("POST", "/federation/join", json={"token": token}), Joined)

    def leave_federation(self, *, force: bool = False) -> Departure:
        params = {"force": "true"} if force else {}
        return record_of(self._send("DELETE", "/federation", params=params), Departure)

    def remove_node(self, node: str) -> None:
        check(self._send("DELETE", _path(node)))

    def promote_node(self, node: str) -> CoreMember:
        return record_of(self._send("POST", f"{_path(node)}/promote"), CoreMember)

    def demote_node(self, node: str) -> Demotion:
        return record_of(self._send("POST", f"{_path(node)}/demote"), Demotion)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        return self.http.send(method, path, timeout=PATIENCE, **options)


def _path(node: str) -> str:
    return f"/federation/members/{quote(node, safe='')}"
