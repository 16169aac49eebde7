"""`maoctl pipeline diff|approve` and `maoctl node trust|untrust|trusted`."""

from __future__ import annotations

from typing import Any

from .conftest import Maoctl
from .gateways import RememberingGateway

ID = "0123456789abcdef0123456789abcdef"
DIFF: dict[str, Any] = {
    "pipeline": "daily",
    "enrolled": True,
    "definition": ID,
    "pending": ["step crawler: image: a → b"],
    "diff": "--- a\n+++ b\n-image: a\n+image: \x1b]0;evil\x07b",
    "agree": ["capability NET_RAW"],
    "endorsed": {"tools/crawler": ["node-2"], "datasets/raw": []},
}
STEP = {
    "name": "crawler",
    "tool": "crawler",
    "image": {"name": "b", "pinned": "b@sha256:" + "a" * 64, "platform": "linux/amd64"},
    "output": {"name": "raw", "master": "/srv/raw.git", "branch": "node-1"},
}
ENROLMENT = {
    "pipeline": "daily",
    "node": "node-1",
    "steps": [STEP],
    "pipeline_revision": 3,
    "enrolled_at": "2026-01-01T00:00:00Z",
}


def test_pipeline_get_shows_enrolment_and_pending_changes(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    step = {"tool": "crawler", "dataset": "raw", "name": "crawler"}
    states = [
        {"name": "daily", "steps": [step], "enrolled": True, "outdated": True, "pending": DIFF["pending"]},
        {"name": "hourly", "steps": [step], "enrolled": True},
        {"name": "weekly", "steps": [step], "enrolled": False},
    ]
    gateway.answer("GET", "/pipeline", {"items": states})
    result = maoctl("pipeline", "get", "-o", "wide")
    assert result.code == 0, result.err
    daily, hourly, weekly = result.out.splitlines()[1:]
    assert "change pending" in daily
    assert "step crawler: image: a → b" in daily
    assert hourly.split()[:4] == ["hourly", "crawler", "raw", "yes"]
    assert weekly.split()[:4] == ["weekly", "crawler", "raw", "no"]


def test_pipeline_diff_names_endorsing_nodes_and_how_to_approve(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.answer("GET", "/pipeline/daily/diff", DIFF)
    result = maoctl("pipeline", "diff", "daily")
    assert result.code == 0, result.err
    assert result.out == "--- a\n+++ b\n-image: a\n+image: \\x1b]0;evil\\x07b\n"
    assert "tools/crawler: changed by node-2" in result.err
    assert "datasets/raw: endorsed by no trusted node" in result.err
    assert "--agree 'capability NET_RAW'" in result.err
    assert f"maoctl pipeline approve daily --revision {ID}" in result.err


def test_pipeline_diff_names_rebuilt_images(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    rebuilt = {"lab/x:1": {"pinned": "sha256:" + "1" * 64, "here": "sha256:" + "2" * 64}}
    gateway.answer("GET", "/pipeline/daily/diff", {**DIFF, "diff": "", "pending": [], "rebuilt": rebuilt})
    result = maoctl("pipeline", "diff", "daily")
    assert (result.code, result.out) == (0, "")
    assert "lab/x:1 was rebuilt or pulled again" in result.err
    assert "maoctl pipeline enrol daily" in result.err


def test_pipeline_diff_without_pending_changes(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/pipeline/daily/diff", {**DIFF, "diff": "", "pending": []})
    result = maoctl("pipeline", "approve", "daily")
    assert (result.code, result.out) == (0, "")
    assert "no pending changes" in result.err
    assert not gateway.called("POST", "/pipeline/daily/approve")


def test_pipeline_approve_sends_the_revision_shown(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/pipeline/daily/approve", ENROLMENT)
    result = maoctl("pipeline", "approve", "daily", "--revision", ID, "--agree", "capability NET_RAW")
    assert result.code == 0, result.err
    assert "enrolment/daily approved" in result.err
    assert gateway.calls[-1].body == {"definition": ID, "agree": ["capability NET_RAW"]}


def test_pipeline_approve_without_revision_asks_first(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/pipeline/daily/diff", DIFF)
    gateway.answer("POST", "/pipeline/daily/approve", ENROLMENT)
    result = maoctl("pipeline", "approve", "daily")
    assert result.code == 2
    assert not gateway.called("POST", "/pipeline/daily/approve")
    assert maoctl("pipeline", "approve", "daily", "--yes").code == 0
    assert gateway.calls[-1].body == {"definition": ID, "agree": []}


def test_pipeline_approve_of_a_changed_definition_conflicts(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    step = "maoctl pipeline diff daily"
    gateway.problem("POST", "/pipeline/daily/approve", 412, "definition-changed", next=step)
    result = maoctl("pipeline", "approve", "daily", "--revision", ID)
    assert (result.code, f"next: {step}" in result.err) == (5, True)


def test_node_trust_and_untrust(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    record = {"node": "node-2", "since": "2026-01-01T00:00:00Z"}
    gateway.answer("PUT", "/trusted/node-2", record)
    gateway.answer("GET", "/trusted", {"items": [record], "cursor": None})
    gateway.answer("DELETE", "/trusted/node-2", "", 204)
    gateway.answer("GET", "/federation/nodes/node-2", {"name": "node-2", "present": False})
    assert maoctl("node", "trust", "node-2").code == 0
    assert maoctl("node", "trusted", "-o", "name").out == "node/node-2\n"
    gateway.answer(
        "GET", "/federation/nodes", {"items": [{"name": "node-2", "present": True}], "cursor": None}
    )
    mistyped = maoctl("node", "trust", "nod-2")
    assert (mistyped.code, "node-2" in mistyped.err) == (3, True)
    assert maoctl("node", "untrust", "node-2").code == 0


def test_pipeline_approve_rejects_an_invalid_revision(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    result = maoctl("pipeline", "approve", "daily", "--revision", "deadbeef")
    assert result.code == 2
    assert "Invalid revision 'deadbeef'" in result.err
    assert "next: See the revision: maoctl pipeline diff daily" in result.err
    assert not gateway.calls
