"""The steps that result when a node enrols in a pipeline."""

from __future__ import annotations

import pytest

from mao_registry.consent.definition import (
    check_agreed,
    consent_document,
    definition_id,
    describe_changes,
    enrol_command,
    resolve_steps,
    unified_diff,
)
from mao_shared.errors import InvalidInput
from mao_shared.models import Dataset, Limits, Pipeline, Privileges, ResolvedImage, Step, Tool, VoteDefinition

TOOL = Tool(name="t", image="busybox", command=["a"], env={"A": "1", "B": "1"}, limits=Limits(pids=7))
IMAGE = ResolvedImage(name="busybox", pinned="sha256:" + "0" * 64, platform="linux/amd64")
DATASETS = {name: Dataset(name=name, master=f"/{name}.git") for name in ("out", "in")}


def _pipeline(**step: object) -> Pipeline:
    return Pipeline(name="p", steps=[Step.model_validate({"tool": "t", "dataset": "out", **step})])


def test_resolve_steps_defaults_from_tool() -> None:
    [step] = resolve_steps(_pipeline(env={"B": "2"}), {"t": TOOL}, DATASETS, {"busybox": IMAGE}, "n")
    assert (step.command, step.env, step.limits.pids) == (["a"], {"A": "1", "B": "2"}, 7)
    assert (step.output.branch, step.output.master, step.input) == ("n", "/out.git", None)
    assert step.image == IMAGE


def test_resolve_steps_step_overrides_tool() -> None:
    pipeline = _pipeline(command=["b"], limits={"pids": 9}, input_dataset="in", input_branch="other")
    [step] = resolve_steps(pipeline, {"t": TOOL}, DATASETS, {"busybox": IMAGE}, "n")
    assert (step.command, step.limits.pids) == (["b"], 9)
    assert step.input is not None
    assert (step.input.name, step.input.branch) == ("in", "other")


def test_resolve_steps_includes_dataset_settings() -> None:
    vote = VoteDefinition(deadline=60)
    datasets = DATASETS | {"out": Dataset(name="out", master="/out.git", vote=vote, lfs_above=1000)}
    pipeline = _pipeline(input_dataset="out")
    [step] = resolve_steps(pipeline, {"t": TOOL}, datasets, {"busybox": IMAGE}, "n")
    assert (step.output.vote, step.output.lfs_above) == (vote, 1000)
    assert step.input is not None
    assert (step.input.vote, step.input.lfs_above) == (None, None)


@pytest.mark.parametrize(
    "changed",
    [
        [],
        [{"name": "enough", "at_least": 100, "on_failure": "warn"}],
        [{"name": "enough", "at_least": 1, "on_failure": "block"}],
        [{"name": "shape", "file": "a.json", "json_schema": {"type": "object"}}],
    ],
)
def test_checks_are_part_of_what_is_consented_to(changed: list[dict[str, object]]) -> None:
    first = [{"name": "enough", "at_least": 100, "on_failure": "block"}]
    before, after = (
        consent_document(
            "skip", resolve_steps(_pipeline(checks=checks), {"t": TOOL}, DATASETS, {"busybox": IMAGE}, "n")
        )
        for checks in (first, changed)
    )
    assert definition_id("p", before) != definition_id("p", after)
    [line] = describe_changes(before, after)
    assert line.startswith("step t: checks: ")
    diff = unified_diff(before, after, was="before", will_be="after")
    assert [line for line in diff.splitlines()[2:] if line[:1] in ("+", "-")]


def test_check_agreed_grants_only_requested() -> None:
    asking = TOOL.model_copy(update={"privileges": Privileges(user="root")})
    assert check_agreed([asking], ["user root", "host network"], set(), "c") == ["user root"]
    assert check_agreed([TOOL], ["user root"], set(), "c") == []


def test_check_agreed_names_missing_per_tool() -> None:
    asking = TOOL.model_copy(update={"privileges": Privileges(user="root", new_privileges=True)})
    with pytest.raises(InvalidInput) as caught:
        check_agreed([asking], ["user root"], set(), "maoctl pipeline enrol p")
    assert "tool 't' asks for new privileges" in caught.value.detail
    assert "user root" not in caught.value.detail
    wanted = "maoctl pipeline enrol p --agree 'new privileges' --agree 'user root'"
    assert wanted in str(caught.value.next)


@pytest.mark.parametrize(
    ("pipeline", "registered", "command"),
    [
        (Pipeline(name="t", steps=[Step(tool="t", dataset="out")]), False, "maoctl pipeline init t out"),
        (_pipeline(), False, "maoctl pipeline create p --step …"),
        (_pipeline(), True, "maoctl pipeline enrol p"),
    ],
)
def test_enrol_command(pipeline: Pipeline, registered: bool, command: str) -> None:
    assert enrol_command(pipeline, registered=registered) == command
