"""`maoctl audit`: what it asks the node for, pages, tables and formats; the trace of the caller."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mao_shared import __version__

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def entry(number: int, **fields: Any) -> documents.Json:
    basis = {"node": "node-1", "actor": "ada", "actor_kind": "token", "method": "POST", "path": "/x"}
    when = {"id": f"2026013{number}T120000Z-{number}", "at": documents.ago(60 * number)}
    answer = {"status": 201, "action": "tools.create", "subject": f"tool-{number}", "request_id": "r"}
    return {**basis, **when, **answer, **fields}


def page(*entries: documents.Json, cursor: str | None = None) -> documents.Json:
    return {"items": list(entries), "cursor": cursor}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {}),
        (["--actor", "ada"], {"actor": "ada"}),
        (["--action", "tools"], {"action": "tools"}),
        (["--subject", "a b/c"], {"subject": "a b/c"}),
        (["--failed"], {"failed": "true"}),
        (["--succeeded"], {"failed": "false"}),
        (
            ["--since", "2026-01-31T00:00:00Z", "--until", "2026-01-31T12:00:00+01:00"],
            {"since": "2026-01-31T00:00:00Z", "until": "2026-01-31T11:00:00Z"},
        ),
    ],
)
def test_audit_filters_are_the_nodes(
    maoctl: Maoctl, gateway: RememberingGateway, options: list[str], asked: dict[str, str]
) -> None:
    gateway.answer("GET", "/audit", page())
    assert maoctl("audit", *options).code == 0
    [call] = gateway.called("GET", "/audit")
    assert {name: value for name, value in call.query.items() if name != "limit"} == asked


def test_audit_reads_pages_up_to_the_limit(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/audit", page(entry(1), cursor="next"))
    gateway.answer("GET", "/audit", page(cursor="after"))  # none of this page matches
    gateway.answer("GET", "/audit", page(entry(2), entry(3), cursor="more"))
    shown = maoctl("audit", "--limit", "2", "-o", "json")
    assert [item["subject"] for item in json.loads(shown.out)] == ["tool-1", "tool-2"]
    assert [call.query.get("cursor") for call in gateway.called("GET", "/audit")] == [None, "next", "after"]


def test_audit_table_names_actor_operation_and_subject(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    unknown = entry(2, action=None, subject=None, method="DELETE", path="/tools/x\x1b[2J", status=404)
    gateway.answer("GET", "/audit", page(entry(1), unknown))
    shown = maoctl("audit")
    head, first, second = shown.out.splitlines()
    assert head.split() == ["AGE", "ACTOR", "ACTION", "SUBJECT", "STATUS"]
    assert first.split()[-4:] == ["ada", "tools.create", "tool-1", "201"]
    assert "DELETE /tools/x" in second
    assert "\x1b" not in second
    assert maoctl("audit", "-o", "name").out == "audit/20260131T120000Z-1\naudit/20260132T120000Z-2\n"


def test_run_names_its_trace(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    run = documents.run(traceparent=TRACEPARENT)
    gateway.keep("/runs", run, documents.run("20260131T115900Z-daily-00000000"), key="id")
    lines = [line.split() for line in maoctl("run", "show", run["id"]).out.splitlines()]
    assert ["trace", TRACEPARENT.split("-")[1]] in lines
    assert "trace" not in maoctl("run", "show", "00000000").out


@pytest.mark.parametrize(
    ("given", "sent"), [(TRACEPARENT, TRACEPARENT), ("nonsense", None), ("", None), (None, None)]
)
def test_calls_are_part_of_the_trace_that_the_environment_names(
    maoctl: Maoctl, gateway: RememberingGateway, given: str | None, sent: str | None
) -> None:
    gateway.answer("GET", "/audit", page())
    if given is not None:
        maoctl.environ["TRACEPARENT"] = given
    assert maoctl("audit").code == 0
    [call] = gateway.called("GET", "/audit")
    assert call.headers.get("traceparent") == sent


def test_calls_name_the_program_for_the_audit_log(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/audit", page())
    maoctl("audit")
    assert gateway.calls[-1].headers["user-agent"] == f"maoctl/{__version__}"
