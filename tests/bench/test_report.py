"""Reports of benchmark figures; nothing is measured here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from bench.__main__ import BENCHES, arguments, missing
from bench.report import Measure, as_json, as_line, as_table, past_limit

RATIO = {"than": "by hand", "theirs": 100.0, "judged": "ratio", "goal": 1.15, "limit": 1.3}


@pytest.mark.parametrize(
    ("ours", "verdict"), [(115.0, "goal met"), (116.0, "within limit"), (131.0, "PAST LIMIT")]
)
def test_measure_ratio_is_judged_by_goal_and_limit(ours: float, verdict: str) -> None:
    measure = Measure("overhead", ours, "ms", **RATIO)  # type: ignore[arg-type]
    assert measure.verdict == verdict
    assert bool(past_limit([measure])) is (verdict == "PAST LIMIT")


def test_measure_paired_ratio_goes_first() -> None:
    assert Measure("overhead", 200.0, "ms", paired_ratio=1.1, **RATIO).verdict == "goal met"  # type: ignore[arg-type]


def test_measure_judged_by_its_own_figure() -> None:
    measure = Measure("memory", 300.0, "MB", "Prefect", 100.0, "ours", 200.0, 350.0)
    assert measure.verdict == "within limit"
    assert measure.ratio == 3.0


def test_measure_without_limit_fails_no_run() -> None:
    missed = Measure("throughput", 150.0, "s", "xargs", 100.0, "ratio", 1.2)
    assert missed.verdict == "goal missed"
    assert past_limit([missed]) == []
    assert Measure("for information", 1.0, "s").verdict == "-"


def test_as_line_has_goal_and_verdict() -> None:
    measure = Measure("overhead", 116.0, "ms", **RATIO)  # type: ignore[arg-type]
    assert as_line(measure) == "overhead: 116 ms; by hand 100 ms, ratio 1.16; goal 1.15: within limit"
    assert as_line(Measure("for information", 1.0, "s")) == "for information: 1 s"


def test_missing_names_programs_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert list(missing([BENCHES["vote"]])) == []
    [etcd, git] = missing([replace(BENCHES["overhead"], engine=False)])
    assert etcd.startswith("etcd is not on PATH; next: make bench")
    assert git.startswith("git is not on PATH")


def test_as_table_is_markdown_and_names_the_machine() -> None:
    measures = [Measure("overhead", 478.4, "ms", note="medians", **RATIO)]  # type: ignore[arg-type]
    head, rule, row, *rest = as_table({"cpu": "fast"}, measures).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 9
    assert "478 ms" in row
    assert "4.78" in row
    assert rest[1:] == ["* overhead: medians", "", "Machine: cpu fast"]


def test_as_json_has_ratio_and_verdict() -> None:
    document = json.loads(as_json({"cpu": "fast"}, [Measure("overhead", 110.0, "ms", **RATIO)]))  # type: ignore[arg-type]
    assert document["machine"] == {"cpu": "fast"}
    assert document["measures"][0]["verdict"] == "goal met"
    assert document["measures"][0]["ratio"] == pytest.approx(1.1)


def test_arguments_refuse_an_unknown_bench(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        arguments(["latness"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in BENCHES)
