"""The files in monitoring/: accepted by promtool, and about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mao_runner.metrics import engine_observer
from mao_shared.metrics import metrics_of
from mao_shared.settings import SERVICES
from tests.support.memory_node import MemoryNode, memory_node
from tests.support.promtool import MONITORING, promtool

OF_PROMETHEUS = {"up"}
NAME = re.compile(r"\b(?:mao|process)_[a-z_]+\b")


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def queries(rules: list[dict[str, Any]]) -> list[str]:
    """Every expression of rules and dashboard."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [
        *(rule["expr"] for rule in rules),
        *(target["expr"] for panel in panels for target in panel["targets"]),
    ]


def exposed(node: MemoryNode) -> Iterator[tuple[str, str]]:
    """Yield service and metrics of each service."""
    engine_observer(metrics_of(node.apps["runner"]))  # the doubles' driver observes nothing
    for name, app in node.apps.items():
        yield name, metrics_of(app).render().decode()


def samples(texts: Iterable[str]) -> set[str]:
    """Return the names under which Prometheus stores what the texts declare."""
    names = set()
    for text in texts:
        for family in text_string_to_metric_families(text):
            match family.type:
                case "counter":
                    names.add(f"{family.name}_total")
                case "histogram":
                    names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
                case _:
                    names.add(family.name)
    return names


async def test_files_name_existing_metrics(queries: list[str], tmp_path: Path) -> None:
    async with memory_node(tmp_path) as node:
        known = samples(text for _, text in exposed(node))
    named = {name for query in queries for name in NAME.findall(query)}
    assert len(named) > 15
    assert named - known == set()


async def test_files_readme_lists_all_metrics(tmp_path: Path) -> None:
    async with memory_node(tmp_path) as node:
        families = [
            (f"{family.name}_total" if family.type == "counter" else family.name)
            for _, text in exposed(node)
            for family in text_string_to_metric_families(text)
        ]
    lines = (MONITORING / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `mao_")]
    listed = {name for row in rows for name in re.findall(r"`(mao_\w+)`", row.split("|")[1])}
    assert {name for name in families if name.startswith("mao_")} == listed


async def test_files_scraped_paths_answer(tmp_path: Path) -> None:
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    labels = [target["labels"] for target in job["static_configs"]]
    assert {label["service"] for label in labels} == {*SERVICES, "gateway"}
    async with memory_node(tmp_path) as node:
        for label in labels:
            answer = await node.client.get(label["__metrics_path__"])
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain")
            own = metrics_of(node.apps[label["service"]]).render().decode()
            assert samples([answer.text]) == samples([own])


def test_files_commands_in_alerts_exist(rules: list[dict[str, Any]]) -> None:
    texts = " ".join(text for rule in rules for text in rule["annotations"].values())
    commands = set(re.findall(r"maoctl ([a-z]+)(?: ([a-z]+)\b)?(?=[ '\"]|$)", texts))
    assert len(commands) > 3
    for command in sorted(commands):
        words = [word for word in command if word and word != "on"]
        done = subprocess.run([sys.executable, "-m", "maoctl", *words, "--help"], capture_output=True)
        assert done.returncode == 0, words


def test_files_every_alert_says_what_and_what_next(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules.test.yml"),
    ],
)
def test_files_pass_promtool(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", ["mao_runs_total{", "sum by (mao_runs_total"])
def test_files_promtool_refuses_wrong_rules(expression: str, tmp_path: Path) -> None:
    rule = {"groups": [{"name": "x", "rules": [{"alert": "X", "expr": expression}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule))
    assert promtool("check", "rules", "rules.yml", cwd=tmp_path).returncode != 0
