"""Name clashes of two registries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mao_registry.federation.registry_merge import (
    RegistryContents,
    find_clashes,
    find_new_records,
    refuse_clashes,
    removal_commands,
)
from mao_shared.errors import Conflict
from mao_shared.models import Dataset, Pipeline, Schedule, Step, Tool


def tool(name: str, image: str = "lab/x:1") -> Tool:
    return Tool(name=name, author="lab", image=image)


def dataset(name: str, master: str = "/srv/git/x.git", **fields: object) -> Dataset:
    return Dataset.model_validate({"name": name, "master": master, **fields})


def pipeline(name: str, tool_name: str) -> Pipeline:
    return Pipeline(name=name, steps=[Step(tool=tool_name, dataset="data")])


def test_clashes_ignore_equal_records_and_nodes() -> None:
    ours = RegistryContents([tool("a")], [dataset("data", nodes=["n1"])], [pipeline("p", "a")])
    theirs = RegistryContents([tool("a"), tool("b")], [dataset("data", nodes=["n2"])], [pipeline("p", "a")])
    assert find_clashes(ours, theirs) == []
    refuse_clashes([], "lab")


def test_clashes_name_differing_fields() -> None:
    ours = RegistryContents(
        [tool("a"), tool("b", "lab/b:2")],
        [dataset("data", "/srv/git/mine.git"), dataset("mine", external=["key"])],
        [pipeline("p", "a")],
    )
    theirs = RegistryContents(
        [tool("a"), tool("b", "lab/b:1")],
        [dataset("data"), dataset("yours", external=["key"])],
        [pipeline("p", "b")],
    )
    with pytest.raises(Conflict) as caught:
        refuse_clashes(find_clashes(ours, theirs), "lab")
    assert caught.value.code == "names-clash"
    assert [(clash["kind"], clash["name"]) for clash in caught.value.facts["clashes"]] == [
        ("tools", "b"),
        ("datasets", "data"),
        ("datasets", "mine"),
        ("pipelines", "p"),
    ]
    assert "differ in image" in caught.value.detail
    assert "belongs to the dataset 'yours'" in caught.value.detail


def test_removal_commands_are_ordered() -> None:
    ours = RegistryContents(
        [tool("a"), tool("b", "lab/b:2")],
        [dataset("data")],
        [pipeline("p", "b"), pipeline("q", "b"), pipeline("r", "a")],
    )
    theirs = RegistryContents([tool("b")], [], [])
    clashes = find_clashes(ours, theirs)
    job = Schedule(id="p-1", pipeline="p", cron="* * * * *", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    commands = removal_commands(
        clashes, ours, {"p"}, [job, job.model_copy(update={"id": "r-1", "pipeline": "r"})]
    )
    assert commands == [
        "maoctl job remove p-1 --yes",
        "maoctl pipeline withdraw p --yes",
        "maoctl pipeline remove p --yes",
        "maoctl pipeline remove q --yes",
        "maoctl tool remove b --yes",
    ]
    with pytest.raises(Conflict) as caught:
        refuse_clashes(clashes, "lab", commands)
    assert " && ".join(commands) in str(caught.value.next)


def test_new_records_are_found() -> None:
    ours = RegistryContents([tool("b"), tool("a")], [dataset("data")], [pipeline("p", "a")])
    theirs = RegistryContents([tool("b")], [], [])
    assert find_new_records(ours, theirs) == ["tool a", "dataset data", "pipeline p"]
