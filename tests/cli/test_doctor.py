"""`maoctl doctor`: checks, exit codes and next steps."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mao_shared.conditions import NAMES

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

ALL_WELL = """\
CHECK      STATE  DETAIL                  NEXT
gateway    ok     URL
store      ok
registry   ok
scheduler  ok
runner     ok
datamgmt   ok
"""
WELL = {"ready": True, "checks": {"store": "ok"}}
ENGINE = "no answer within 2 s"
SICK = {"ready": False, "checks": {"store": "ok", "engine": ENGINE}, "reason": "waits for: engine"}


def condition(name: str, subject: str = "", state: str = "failed", **words: str) -> dict[str, Any]:
    """Return a condition as `/status` lists it."""
    told = {"name": name, "subject": subject, "state": state, "since": documents.ago(60), "services": ["x"]}
    return {**told, "detail": "It is away.", "next": "Look.", **words}


AWAY = condition("engine", detail=ENGINE, next="'docker info' shows why.")


def status(runner: dict[str, Any] = WELL, **members: Any) -> dict[str, Any]:
    services = {"registry": WELL, "scheduler": WELL, "runner": runner, "datamgmt": WELL}
    ready = runner is WELL
    return {
        "node": "n",
        "version": "0.1.0",
        "ready": ready,
        "conditions": [] if ready else [AWAY],
        "store": "ok",
        "services": services,
        "next": [],
    } | members


def test_doctor_of_a_healthy_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/status", status())

    result = maoctl("doctor")

    assert (result.code, result.err) == (0, "")
    assert result.out == ALL_WELL.replace("URL", maoctl.url)


def test_doctor_names_a_failed_check_and_the_next_step(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/status", status(SICK))

    result = maoctl("doctor")

    assert result.code == 1
    assert re.search(r"^engine +failed +no answer within 2 s", result.out, re.MULTILINE)
    assert "docker info" in result.err


def test_doctor_checks_clock_and_git_identity_if_reported(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    members: dict[str, Any] = {"now": "2026-01-31T11:00:00Z", "git": {"name": "", "email": ""}}
    gateway.answer("GET", "/status", status(**members))

    out = maoctl("doctor").out

    failed = [line.split("  ")[0] for line in out.splitlines() if "failed" in line]
    assert failed == ["git identity", "clock"]
    assert "60m behind this machine" in out


def test_doctor_does_not_judge_the_disk_itself(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    disk = {"free": 1, "total": 2, "writable": False, "shortage": "none is left"}
    gateway.answer("GET", "/status", status(disk=disk))

    assert maoctl("doctor").code == 0


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("degraded", 0)])
@pytest.mark.parametrize("name", sorted(NAMES))
def test_doctor_lists_every_condition_and_fails_for_failed_ones(
    maoctl: Maoctl, gateway: RememberingGateway, name: str, state: str, code: int
) -> None:
    gateway.answer("GET", "/status", status(conditions=[condition(name, "of/this", state)]))

    result = maoctl("doctor")

    assert result.code == code
    assert re.search(rf"^{name} of/this +{state} +It is away\. +Look\.", result.out, re.MULTILINE)


def test_doctor_says_the_fix_of_each_fault(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    conditions = [
        condition("engine", next="'docker info' shows why."),
        condition("disk", next=""),
        condition("remote", "data", "degraded", next="maoctl dataset push data"),
    ]
    gateway.answer("GET", "/status", status(conditions=conditions))

    result = maoctl("doctor")

    assert result.code == 1
    assert result.err == (
        "error: 2 of 9 checks failed.\n"
        "next: engine: 'docker info' shows why.\n"
        "      disk: See the logs of the node's services.\n"
        "      remote data: maoctl dataset push data\n"
    )
    gateway.answers["GET", "/status"] = [(200, status(conditions=conditions[2:]))]
    assert maoctl("doctor").err == "next: maoctl dataset push data\n"


def test_doctor_wait_repeats_until_all_is_well(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    for _ in range(3):
        gateway.answer("GET", "/status", status(SICK))
    gateway.answer("GET", "/status", status())

    result = maoctl("doctor", "--wait", "--timeout", "60s")

    assert result.code == 0
    assert result.err == "waiting for engine, runner\n"
    assert len(maoctl.pauses) == 3


def test_doctor_wait_exits_with_8_on_timeout(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/status", status(SICK))

    assert maoctl("doctor", "--wait", "--timeout", "0").code == 8


def test_doctor_without_a_gateway(maoctl: Maoctl) -> None:
    maoctl.url = "http://127.0.0.1:9"

    result = maoctl("doctor")

    assert result.code == 6
    assert "make node" in result.err


def test_version_of_client_and_node(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/status", status())

    maoctl.environ["MAO_COMMIT"] = "c0ffee"
    assert maoctl("version").out == "client 0.1.0\ncommit c0ffee\nnode 0.1.0\n"


def test_version_without_a_node(maoctl: Maoctl) -> None:
    maoctl.url = "http://127.0.0.1:9"
    maoctl.environ["MAO_COMMIT"] = "c0ffee"

    result = maoctl("version")

    assert (result.code, result.out) == (0, "client 0.1.0\ncommit c0ffee\nnode -\n")
    assert "is not known" in result.err


def test_doctor_shows_an_unreachable_federation_without_failing(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    away = {"name": "lab", "reachable": False, "since": documents.ago(300), "reason": "No answer."}
    gateway.answer("GET", "/status", status(federation=away | {"next": "Start node-2."}))

    result = maoctl("doctor")

    assert result.code == 0
    [line] = [line for line in result.out.splitlines() if line.startswith("federation")]
    assert re.split(" {2,}", line) == [
        "federation",
        "away",
        "lab: unreachable for 5m: No answer.",
        "Start node-2.",
    ]


def test_doctor_fails_on_a_node_removed_from_its_federation(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    removed = {"name": "lab", "reachable": False, "removed": True, "reason": "This node was removed."}
    gateway.answer("GET", "/status", status(federation=removed | {"next": "maoctl federation leave"}))

    result = maoctl("doctor")

    assert result.code == 1
    assert "failed  This node was removed." in result.out
    assert "maoctl federation leave" in result.err
