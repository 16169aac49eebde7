"""The part of `gateway.MaoClient` that is about other nodes."""

from __future__ import annotations

from urllib.parse import quote

from mao_shared.models import LogAnswer, NodePart, NodeRuns
from mao_shared.models.common import STORED

from .gateway_http import GatewayHttp
from .resources import compact
from .responses import record_of


class SeeingCalls:
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
