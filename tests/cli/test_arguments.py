"""Arguments: `--metric`, `--check`, and the command lines of the original's client."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from mao_shared.models import ControlMetric
from mao_shared.models.alarm import Aggregate, Measured
from mao_shared.models.check import Check
from maoctl.arguments import from_original, parse_check, parse_metric, with_checks, with_metrics

from .conftest import Maoctl
from .gateways import RememberingGateway


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("crawl:n=out/a.json#/x/0", {"file": "out/a.json", "pointer": "/x/0"}),
        ("crawl:n=a.json#", {"file": "a.json", "pointer": ""}),
        ("crawl:n=a.csv:size", {"file": "a.csv", "column": "size"}),
        ("crawl:n=a.csv:size:mean", {"file": "a.csv", "column": "size", "aggregate": "mean"}),
        ("crawl:n=a.csv:time:utc", {"file": "a.csv", "column": "time:utc"}),
        ("crawl:n=rows", {"measure": "rows"}),
    ],
)
def test_parse_metric_forms(text: str, fields: dict[str, str]) -> None:
    assert parse_metric(text) == ("crawl", {"name": "n", **fields})
    ControlMetric.model_validate({"name": "n", **fields})


@pytest.mark.parametrize("text", ["", "n=rows", "crawl:=rows", "crawl:n", "crawl:n=size", "crawl:n=#/x"])
def test_parse_metric_rejects_other_forms(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_metric(text)


def test_parse_metric_accepts_every_value_of_the_api() -> None:
    for measure in get_args(Measured):
        assert parse_metric(f"crawl:n={measure}")[1] == {"name": "n", "measure": measure}
    for how in get_args(Aggregate):
        assert parse_metric(f"crawl:n=a.csv:x:{how}")[1]["aggregate"] == how


def test_with_metrics_assigns_metrics_to_steps() -> None:
    steps = [{"tool": "crawl", "dataset": "raw"}, {"tool": "sum", "dataset": "tables"}]
    found = with_metrics(steps, ["sum:n=files"])
    assert found == [steps[0], {**steps[1], "metrics": [{"name": "n", "measure": "files"}]}]
    with pytest.raises(typer.BadParameter, match="names no step; the steps are crawl, sum"):
        with_metrics(steps, ["other:n=files"])


TOOL = "--name x --author 'A. Scientist' --image lab/x:1 --data_repo d --code_repo c --artefact helm"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("tool get", "tool get"),
        ("tool get --name x", "tool get -- x"),
        ("tool get --name=x -o json", "tool get -o json -- x"),
        (f"tool add {TOOL}", "tool add -- x 'A. Scientist' lab/x:1 d c helm"),
        ("tool add --image lab/x:1 --name x", "tool add -- x '' lab/x:1"),
        ("tool remove --name x", "tool remove --yes -- x"),
        ("tool list-scheduled", "job get"),
        ("tool stop --id x-1a2b3c", "job remove --yes -- x-1a2b3c"),
        ("dataset add --name d --git_url git@h:d.git", "dataset add -- d git@h:d.git"),
        ("dataset remove --name d --yes", "dataset remove --yes -- d"),
        ("pipeline get --name 'Packages only'", "pipeline get -- 'Packages only'"),
        ("pipeline run --name p", "pipeline run -- p"),
        ("repo add --name local", "dataset init -- local"),
        ("tool add x me lab/x:1 d c helm", "tool add x me lab/x:1 d c helm"),
        ("pipeline run p --cron '0 4 * * *'", "pipeline run p --cron '0 4 * * *'"),
        ("node get --name x", "node get --name x"),
        ("tool get -- --name", "tool get -- --name"),
        ("tool get --name", "tool get --name"),
        ("", ""),
        ("tool", "tool"),
    ],
)
def test_from_original_translates_command_lines(theirs: str, ours: str) -> None:
    assert from_original(shlex.split(theirs)) == shlex.split(ours)


def test_original_command_lines_send_the_same_calls(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    assert maoctl("tool", "add", *shlex.split(TOOL)).code == 0
    assert gateway.kept["/registry/tools"]["x"]["artefact"] == "helm"
    assert json.loads(maoctl("tool", "get", "--name", "x", "-o", "json").out)["author"] == "A. Scientist"
    assert maoctl("tool", "remove", "--name", "x").code == 0
    assert gateway.kept["/registry/tools"] == {}


def test_apply_of_the_originals_marketplace(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path
) -> None:
    step = {
        "name": "execution",
        "tool": "t",
        "output_dataset": "d",
        "cmd": [],
        "env": {},
        "docker_socket": True,
    }
    records = [
        {"name": "t", "author": "a", "image": "lab/t", "data_repo": "", "code_repo": "", "artefact": "x"},
        {"name": "d", "body": {"master": "/d.git", "nodes": []}},
        {"name": "CIPolice Scanner", "description": "", "steps": [step]},
    ]
    (tmp_path / "market.json").write_text(json.dumps(records))
    for state in ("created", "unchanged"):
        done = maoctl("apply", "-f", str(tmp_path / "market.json"))
        assert done.code == 0, done.err
        assert done.out.count(state) == 3
    kept = gateway.kept["/registry/pipelines"]["CIPolice-Scanner"]
    assert (kept["title"], kept["steps"][0]["engine_socket"]) == ("CIPolice Scanner", True)


def test_tool_add_with_the_engines_socket(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    assert maoctl("tool", "add", "x", "me", "lab/x:1", "--docker-socket").code == 0
    assert gateway.kept["/registry/tools"]["x"]["privileges"]["docker_socket"] is True
    assert maoctl("tool", "update", "x", "--no-docker-socket").code == 0
    assert "docker_socket" not in gateway.kept["/registry/tools"]["x"]["privileges"]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("crawl:n=results.csv", {"file": "results.csv"}),
        ("crawl:n=out/**/*.csv:block", {"file": "out/**/*.csv", "on_failure": "block"}),
        (
            "crawl:n=a.csv:columns:id=integer,size=number:quarantine",
            {"file": "a.csv", "columns": {"id": "integer", "size": "number"}, "on_failure": "quarantine"},
        ),
        ("crawl:n=rows:100..", {"at_least": 100}),
        ("crawl:n=rows:100..5000:warn", {"at_least": 100, "at_most": 5000, "on_failure": "warn"}),
        ("crawl:n=a.csv:rows:..7", {"file": "a.csv", "at_most": 7}),
        ("crawl:n=rows-change:-10%..+500", {"max_decrease": "10%", "max_increase": "500"}),
        (
            "crawl:n=a.csv:rows-change:-0..:block",
            {"file": "a.csv", "max_decrease": "0", "on_failure": "block"},
        ),
        ("crawl:n=metric:images:quarantine", {"metric": "images", "on_failure": "quarantine"}),
    ],
)
def test_parse_check_forms(text: str, fields: dict[str, Any]) -> None:
    assert parse_check(text) == ("crawl", {"name": "n", **fields})
    Check.model_validate({"name": "n", **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n=a.csv",
        "crawl:=a.csv",
        "crawl:n=",
        "crawl:n",
        "crawl:n=rows:100",
        "crawl:n=rows:..",
        "crawl:n=rows:a..b",
        "crawl:n=rows:-1..",
        "crawl:n=rows-change:10%..",
        "crawl:n=rows-change:..5",
        "crawl:n=a.csv:columns:id",
        "crawl:n=a.json:schema:/none/such.json",
    ],
)
def test_parse_check_rejects_other_forms(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_check(text)


@pytest.mark.parametrize("text", ['{"type": "object"}', "type: object\n"])
def test_parse_check_reads_a_schema_as_json_or_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    _, fields = parse_check(f"crawl:n=a.json:schema:{tmp_path}/s.json:block")
    assert fields == {"name": "n", "file": "a.json", "json_schema": {"type": "object"}, "on_failure": "block"}


def test_with_checks_assigns_checks_to_steps() -> None:
    steps = [{"tool": "crawl", "dataset": "raw"}, {"tool": "sum", "dataset": "tables"}]
    found = with_checks(steps, ["sum:n=a.csv", "sum:m=rows:1.."])
    assert found == [
        steps[0],
        {**steps[1], "checks": [{"name": "n", "file": "a.csv"}, {"name": "m", "at_least": 1}]},
    ]
    with pytest.raises(typer.BadParameter, match="names no step; the steps are crawl, sum"):
        with_checks(steps, ["other:n=a.csv"])
