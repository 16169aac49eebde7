"""The part of `gateway.MaoClient` that is about consent: what is pending, approvals, trust."""

from __future__ import annotations

from urllib.parse import quote

from mao_shared.models import Enrolment, PipelineDiff, Trust
from mao_shared.models.common import STORED

from .gateway_http import GatewayHttp
from .responses import check, record_of
from .runner import PULL_TIMEOUT


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
