"""A pipeline that all nodes of a lab share, with the dataset it collects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .federated import Lab, SiteNode, until
from .git import git

LIAR = "gamma"
ROWS = 200
# The values depend on the tick and agree on all nodes; the liar changes one row in twenty, varying by tick.
COLLECT = f"""\
awk -v tick="$MAO_SCHEDULED_FOR" -v node="$MAO_NODE" 'BEGIN {{
  gsub(/[^0-9]/, "", tick); salt = substr(tick, length(tick) - 3) + 0
  print "id,tick,value"
  for (i = 0; i < {ROWS}; i++) {{
    value = i * 10 + salt
    if (node == "{LIAR}" && (i + salt) % 20 == 0) value = value * 3 + 1
    print i "," tick "," value
  }}
}}' > /usr/src/app/data/values.csv
"""
HONEST = COLLECT.replace(f'node == "{LIAR}"', "0")


@dataclass
class SharedPipeline:
    """A pipeline enrolled on all nodes of `lab`; `remote` is the path of the dataset's repository."""

    lab: Lab
    remote: Path
    pipeline: str = "watch"
    dataset: str = "values"

    def job(self, node: SiteNode, cron: str, **more: Any) -> str:
        """Schedule the pipeline on a node and return the job's id."""
        spec = {"cron": cron, "seconds": True, "overlap": "queue", "catch_up": "all", **more}
        answer = node.http.post("/pipeline/run", json={"name": self.pipeline, **spec})
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def runs(self, node: SiteNode) -> list[dict[str, Any]]:
        """Return this node's scheduled runs, oldest first."""
        items = node.http.get("/runs", params={"pipeline": self.pipeline, "limit": 1000}).json()["items"]
        return sorted((r for r in items if r["scheduled_for"]), key=lambda r: str(r["scheduled_for"]))

    def run_tick(self, node: SiteNode, tick: str) -> str:
        """Start the run for a tick and return its id."""
        answer = node.http.post("/pipeline/run", json={"name": self.pipeline, "scheduled_for": tick})
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def rounds(self, node: SiteNode) -> dict[str, dict[str, Any]]:
        """Return the rounds that the node sees, by id."""
        answer = node.http.get("/rounds", params={"dataset": self.dataset, "limit": 1000})
        assert answer.is_success, answer.text
        return {item["id"]: item for item in answer.json()["items"]}

    def ended(self, node: SiteNode, count: int, limit: float = 120) -> dict[str, dict[str, Any]]:
        """Wait until `count` of the node's rounds have ended and return the ended rounds by id."""

        def enough() -> dict[str, dict[str, Any]] | None:
            over = {n: r for n, r in self.rounds(node).items() if r["phase"] in ("decided", "undecided")}
            return over if len(over) >= count else None

        found: dict[str, dict[str, Any]] = until(enough, f"{count} rounds have ended", limit)
        return found

    def file(self, revision: str) -> str:
        return git(self.remote, "show", f"{revision}:values.csv")


def share(lab: Lab, image: str, *, deadline: float = 20) -> SharedPipeline:
    """Register tool, dataset and pipeline on the first node, and enrol all nodes."""
    remote, url = lab.remote("values")
    first, *others = lab.nodes
    first.maoctl("tool", "add", "watch", "A. Scientist", image, "", "", "x")
    body = {"name": "values", "master": url, "vote": {"deadline": deadline}}
    answer = first.http.post("/registry/datasets", json=body)
    assert answer.is_success, answer.text
    first.maoctl("pipeline", "init", "watch", "values")
    for node in others:
        node.maoctl("pipeline", "enrol", "watch")
    return SharedPipeline(lab, remote)
