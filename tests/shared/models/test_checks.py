"""Declared data checks: what is one, what is refused, what is stored; the strongest reaction counts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mao_shared.agreements import step_digest
from mao_shared.models import DatasetRef, ResolvedImage, ResolvedStep, Step
from mao_shared.models.check import (
    MAX_SCHEMA_BYTES,
    Check,
    CheckResult,
    failed_checks_text,
    results_from_record,
    strongest_reaction,
)
from mao_shared.models.common import STORED
from mao_shared.store.records import dump

NESTED: dict[str, Any] = {}
for _ in range(70):
    NESTED = {"items": NESTED}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"file": "out/*.csv"}, "present"),
        ({"file": "a.csv", "columns": {"id": "integer"}, "not_empty": ["id"]}, "columns"),
        ({"at_least": 1}, "rows"),
        ({"file": "a.csv", "at_most": 0}, "rows"),
        ({"max_increase": "12.5%", "max_decrease": 7}, "rows-change"),
        ({"metric": "images"}, "metric"),
        ({"file": "a.json", "json_schema": {"$ref": "#/$defs/x", "$defs": {"x": {"const": None}}}}, "schema"),
        ({"file": "a.json", "json_schema": {"const": {"$ref": "http://x"}}}, "schema"),  # data, not a schema
    ],
)
def test_check_is_of_one_kind_and_survives_storage(fields: dict[str, Any], kind: str) -> None:
    check = Check.model_validate({"name": "one", "on_failure": "block", **fields})
    assert check.kind == kind
    assert Check.model_validate_json(dump(check), context=STORED) == check


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "give 'file'"),
        ({"columns": {"id": "text"}}, "give 'file'"),
        ({"json_schema": {}}, "give 'file'"),
        ({"file": "a", "metric": "x"}, "has no 'file'"),
        ({"file": "a", "columns": {"id": "text"}, "at_least": 1}, "of one kind"),
        ({"at_least": 1, "max_increase": "1%"}, "of one kind"),
        ({"at_least": 5, "at_most": 4}, "greater than"),
        ({"at_least": -1}, "greater than or equal to 0"),
        ({"max_increase": "-5"}, "pattern"),
        ({"max_increase": "ten%"}, "pattern"),
        ({"max_decrease": True}, "valid string"),
        ({"file": "a", "columns": {"id": "float"}}, "'text', 'integer'"),
        ({"file": "a", "columns": {"id": "text"}, "not_empty": ["x"]}, "not in 'columns'"),
        ({"file": "a", "on_failure": "delete"}, "'warn', 'quarantine'"),
        ({"file": "a", "json_schema": {"$ref": "https://example.org/x.json"}}, "outside of the schema"),
        ({"file": "a", "json_schema": {"items": [{"$dynamicRef": "other.json"}]}}, "outside of the schema"),
        ({"file": "a", "json_schema": {"enum": ["x" * MAX_SCHEMA_BYTES]}}, "more than"),
        ({"file": "a", "json_schema": NESTED}, "levels deep"),
        ({"file": "a", "glob": "b"}, "Extra inputs"),
    ],
)
def test_check_that_means_nothing_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Check.model_validate({"name": "one", **fields})
    assert why in str(refused.value)


def step(**fields: Any) -> Step:
    return Step.model_validate({"tool": "crawler", "dataset": "raw", **fields})


def test_step_refuses_equal_names_and_unknown_metrics() -> None:
    one = {"name": "one", "file": "a"}
    with pytest.raises(ValidationError, match="two checks have the name 'one'"):
        step(checks=[one, one])
    with pytest.raises(ValidationError, match="the step has no metric 'images'"):
        step(checks=[{"name": "band", "metric": "images"}])
    metric = {"name": "images", "measure": "files"}
    assert step(metrics=[metric], checks=[{"name": "band", "metric": "images"}]).checks[0].kind == "metric"


def test_step_without_checks_is_stored_and_agreed_to_as_by_earlier_versions() -> None:
    assert b"checks" not in dump(step())
    image = ResolvedImage(name="x", pinned="sha256:0", platform="linux/amd64")
    output = DatasetRef(name="raw", master="/x.git", branch="node-1")
    plain = ResolvedStep(name="crawler", tool="crawler", image=image, output=output)
    assert b"checks" not in dump(plain)
    checked = plain.model_copy(update={"checks": [Check(name="one", file="a")]})
    assert step_digest("node-1", "p", plain) != step_digest("node-1", "p", checked)


def result(name: str, on_failure: str, *, passed: bool) -> CheckResult:
    return CheckResult(name=name, kind="rows", on_failure=on_failure, passed=passed, detail=f"{name}.")


@pytest.mark.parametrize(
    ("failed", "reaction"),
    [
        ([], None),
        (["warn"], "warn"),
        (["warn", "quarantine"], "quarantine"),
        (["block", "quarantine", "warn"], "block"),
        (["ask-the-moon"], "block"),
    ],
)
def test_strongest_reaction_counts(failed: list[str], reaction: str | None) -> None:
    results = [result("ok", "block", passed=True)] + [result(name, name, passed=False) for name in failed]
    assert strongest_reaction(results) == reaction
    text = failed_checks_text(results)
    assert "ok" not in text
    assert [part.partition(":")[0] for part in text.split("; ") if part] == sorted(
        failed, key=["ask-the-moon", "block", "quarantine", "warn"].index
    )
    assert len(failed_checks_text(results * 100, 50)) <= 50


@pytest.mark.parametrize(
    "found", [None, {}, {"checks": None}, {"checks": "x"}, {"checks": [{"name": 1}]}, {"checks": [3]}]
)
def test_results_in_a_record_that_others_wrote_are_none(found: Any) -> None:
    assert results_from_record(found) == []


def test_results_of_a_newer_version_are_kept() -> None:
    [found] = results_from_record(
        {"checks": [{"name": "a", "kind": "image", "on_failure": "ask", "passed": True, "pixels": 3}]}
    )
    assert (found.kind, found.on_failure, found.passed) == ("image", "ask", True)
