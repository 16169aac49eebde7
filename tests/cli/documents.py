"""Records as a node returns them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mao_shared.models import NodePart, Run, Schedule, Tool
from mao_shared.models.dataset import DatasetStatus
from mao_shared.models.node import NodeStatus

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


def tool(name: str = "crawler", **fields: Any) -> Json:
    basis = {"name": name, "author": "A. Scientist", "image": f"lab/{name}:1.4"}
    return Tool.model_validate(basis | fields).model_dump(mode="json")


def dataset(name: str = "data", **fields: Any) -> Json:
    return {"name": name, "master": f"/srv/git/{name}.git", "nodes": ["node-1"], "description": "", **fields}


def pipeline(name: str = "daily", **fields: Any) -> Json:
    return {"name": name, "steps": [{"tool": "crawler", "dataset": "data"}], **fields}


def step(name: str = "crawler", phase: str = "succeeded", **fields: Any) -> Json:
    spec = {
        "name": name,
        "tool": name,
        "image": {"name": f"lab/{name}:1.4", "pinned": "sha256:" + "a" * 64, "platform": "linux/amd64"},
        "output": {"name": "data", "master": "/srv/git/data.git", "branch": "node-1"},
    }
    times = {"preparing": ago(50), "running": ago(40)} if phase not in ("pending", "preparing") else {}
    if phase == "succeeded":
        times["succeeded"] = ago(10)
        fields = {"snapshot": "c0ffee" * 6 + "abcd", "pushed": True, "exit": {"code": 0}} | fields
    return {"spec": spec, "phase": phase, "times": times, **fields}


def run(run_id: str = "20260131T115900Z-daily-0a1b2c3d", phase: str = "succeeded", **fields: Any) -> Json:
    basis: Json = {
        "id": run_id,
        "pipeline": "daily",
        "node": "node-1",
        "trigger": "manual",
        "phase": phase,
        "created_at": ago(60),
        "started_at": ago(55),
        "steps": [step(phase=phase if phase in ("running", "failed", "succeeded") else "pending")],
    }
    if phase not in ("queued", "running"):
        basis["finished_at"] = ago(5)
    return Run.model_validate(basis | fields).model_dump(mode="json")


def job(job_id: str = "daily-3f2a1c", **fields: Any) -> Json:
    basis = {"id": job_id, "pipeline": "daily", "cron": "30 2 * * *", "created_at": ago(3 * 86400)}
    return Schedule.model_validate(basis | fields).model_dump(mode="json")


def node(name: str = "node-1") -> Json:
    fields = {"version": "0.1.0", "slots": 2, "cpus": 2, "memory": 8 * 1024**3, "started_at": ago(7200)}
    return NodePart.model_validate({"name": name, "present": True, **fields}).model_dump(mode="json")


def dataset_status(name: str = "data", **fields: Any) -> Json:
    """Return the status of a clone that is in sync with its remote."""
    outbox = {"state": "in-sync", "waiting": 0, "tries": 0}
    basis = {"name": name, "master": f"/srv/git/{name}.git", "branches": [], "unpushed": 0, "size": 1}
    return DatasetStatus.model_validate(basis | {"outbox": outbox} | fields).model_dump(mode="json")


def node_status(name: str = "node-1") -> Json:
    """Return the status of a healthy node."""
    basis = {"node": name, "version": "0.1.0", "ready": True, "store": "ok", "services": {}, "conditions": []}
    return NodeStatus.model_validate(basis | {"now": NOW}).model_dump(mode="json")


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
