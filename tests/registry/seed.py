"""The request bodies of the original README and client, and the resulting records."""

from __future__ import annotations

from typing import Any

import httpx

TOOL: dict[str, Any] = {
    "name": "crawler",
    "author": "lab",
    "image": "busybox:1.36",
    "data_repo": "https://git.example.org/data",
    "code_repo": "git@git.example.org:code.git",
    "artefact": "helm",
}
DATASET: dict[str, Any] = {"name": "charts", "body": {"master": "/srv/git/charts.git", "nodes": []}}
INIT: dict[str, Any] = {"tool": "crawler", "dataset": "charts"}


async def register(api: httpx.AsyncClient, **tool: Any) -> None:
    """Register the tool and the dataset; `tool` overrides fields of the tool."""
    for path, body in (("tools", {**TOOL, **tool}), ("datasets", DATASET)):
        answer = await api.post(f"/registry/{path}", json=body)
        assert answer.status_code == 201, answer.text


async def enrol(api: httpx.AsyncClient) -> None:
    """Make all of the original README's calls up to the run."""
    await register(api)
    answer = await api.post("/pipeline/init", json=INIT)
    assert answer.status_code == 201, answer.text
