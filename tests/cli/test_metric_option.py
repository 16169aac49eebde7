"""`--metric` of `pipeline create`."""

from __future__ import annotations

from typing import get_args

import pytest
import typer

from mao_shared.models import ControlMetric
from mao_shared.models.alarm import Aggregate, Measured
from maoctl.arguments import parse_metric, with_metrics


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
def test_forms(text: str, fields: dict[str, str]) -> None:
    assert parse_metric(text) == ("crawl", {"name": "n", **fields})
    ControlMetric.model_validate({"name": "n", **fields})


@pytest.mark.parametrize("text", ["", "n=rows", "crawl:=rows", "crawl:n", "crawl:n=size", "crawl:n=#/x"])
def test_what_is_no_metric(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_metric(text)


def test_every_word_of_the_api_can_be_typed() -> None:
    for measure in get_args(Measured):
        assert parse_metric(f"crawl:n={measure}")[1] == {"name": "n", "measure": measure}
    for how in get_args(Aggregate):
        assert parse_metric(f"crawl:n=a.csv:x:{how}")[1]["aggregate"] == how


def test_steps_get_their_own() -> None:
    steps = [{"tool": "crawl", "dataset": "raw"}, {"tool": "sum", "dataset": "tables"}]
    found = with_metrics(steps, ["sum:n=files"])
    assert found == [steps[0], {**steps[1], "metrics": [{"name": "n", "measure": "files"}]}]
    with pytest.raises(typer.BadParameter, match="names none of crawl, sum"):
        with_metrics(steps, ["other:n=files"])
