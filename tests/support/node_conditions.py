"""Conditions and alarms as a whole node reports them in its API, its CLI and its metrics."""

from __future__ import annotations

from typing import Any

from .node import NativeNode
from .waiting import eventually

LASTS = 60.0  # seconds to wait for an alarm, which a condition raises after ten
OVER = 90.0  # seconds to wait for an alarm to end, thirty after recovery


def find_condition(node: NativeNode, name: str, subject: str | None = None) -> dict[str, Any] | None:
    """Return the condition as `/status` lists it, or None."""
    found: list[dict[str, Any]] = node.http.get("/status").json()["conditions"]
    return next(
        (
            condition
            for condition in found
            if condition["name"] == name and subject in (None, condition["subject"])
        ),
        None,
    )


def alarms(node: NativeNode, kind: str, subject: str | None = None) -> list[dict[str, Any]]:
    """Return the alarms of a kind, acknowledged or not."""
    listed: list[dict[str, Any]] = node.http.get("/alarms").json()["items"]
    return [alarm for alarm in listed if alarm["kind"] == kind and subject in (None, alarm.get("subject"))]


async def check_condition_everywhere(
    node: NativeNode, name: str, subject: str = "", *, failed: bool
) -> dict[str, Any]:
    """Wait for the condition and check that readiness, doctor and metrics agree on it."""
    await eventually(lambda: find_condition(node, name, subject), LASTS)
    condition = find_condition(node, name, subject)
    assert condition is not None
    state = "failed" if failed else "degraded"
    assert (condition["state"], bool(condition["next"])) == (state, True), condition
    assert node.http.get("/readyz").status_code == (503 if failed else 200)
    doctor = node.maoctl("doctor", "--output=json", check=False)
    assert doctor.returncode == (1 if failed else 0), doctor.stdout + doctor.stderr
    row = f"{name} {subject}".rstrip()
    assert f'"{row}"' in doctor.stdout, doctor.stdout
    assert condition["next"].split("'")[0] in doctor.stdout, doctor.stdout
    (service, *_) = condition["services"]
    metrics = node.http.get("/metrics").text if service == "gateway" else _metrics(node, service)
    assert f'name="{name}",state="{state}",subject="{subject}"' in metrics, metrics
    return condition


async def wait_for_alarm(node: NativeNode, name: str, subject: str = "") -> dict[str, Any]:
    """Wait until the alarm is raised and return it."""
    await eventually(lambda: alarms(node, name, subject or None), LASTS)
    (alarm,) = alarms(node, name, subject or None)
    assert not alarm.get("over")
    return alarm


async def check_recovery(node: NativeNode, name: str, subject: str = "") -> None:
    """Wait until the condition is gone and its only alarm is over."""
    await eventually(lambda: find_condition(node, name, subject) is None, LASTS)
    assert node.http.get("/readyz").status_code == 200
    await eventually(lambda: alarms(node, name, subject or None)[0].get("over"), OVER)
    assert len(alarms(node, name, subject or None)) == 1


def _metrics(node: NativeNode, service: str) -> str:
    with node.service(service) as client:
        return client.get("/metrics").text
