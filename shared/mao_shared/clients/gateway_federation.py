"""The part of `gateway.MaoClient` that is about the federation itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mao_shared.models import CoreMember, Demotion, Departure, FederationState, Invitation, Joined, NodeState
from mao_shared.models.common import STORED

from .gateway_http import GatewayHttp
from .responses import check, json_of, record_of

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
