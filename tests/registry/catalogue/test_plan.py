"""What an installation would do: created, unchanged, differing, missing, refused."""

from __future__ import annotations

from typing import Any

import pytest

from mao_registry.catalogue.plan import Known, Plan, make_plan
from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.models.catalogue import InstallChoices

from .samples import PLACEHOLDER, read_lab

NOTHING = Known()


def plan(name: str, known: Known = NOTHING, kind: Any = "pipelines", **choices: Any) -> Plan:
    catalogue = read_lab()
    entry = catalogue.find(kind, name)
    assert entry is not None
    return make_plan(entry, catalogue, known, InstallChoices.model_validate(choices))


def states(made: Plan) -> dict[str, str]:
    return {f"{item.kind}/{item.name}": item.state for item in made.items}


def installed(**changes: Any) -> Known:
    """Return what a node has after the installation of 'Hub survey', with records replaced."""
    entry = read_lab().find("pipelines", "Hub survey")
    assert entry is not None
    assert isinstance(entry.record, Pipeline)
    known: dict[str, Any] = {
        "tools": {
            "crawler": Tool(name="crawler", image="lab/crawler:1.4", author="somebody else"),
            "summary": Tool(name="summary", image="lab/summary:2"),
        },
        "datasets": {name: Dataset(name=name, master=f"/srv/{name}") for name in ("raw", "sums")},
        "pipelines": {"Hub-survey": entry.record},
        "enrolled": {"Hub-survey"},
        "images": {"lab/crawler:1.4": True, "lab/summary:2": True},
    }
    return Known(**known | changes)


def test_plan_of_new_pipeline_lists_missing_datasets() -> None:
    made = plan("Hub survey")
    assert states(made) == {
        "pipeline/Hub-survey": "created",
        "tool/crawler": "created",
        "tool/summary": "created",
        "dataset/raw": "missing",
        "dataset/sums": "missing",
        "image/lab/crawler:1.4": "unknown",
        "image/lab/summary:2": "unknown",
        "enrolment/Hub-survey": "created",
    }
    assert made.state == "incomplete"
    assert made.blocking[0].next == "Give its remote: --dataset raw=URL; or make it on this node: --local"


def test_plan_with_datasets_is_ready() -> None:
    remote = "git@git.example.org:mao/raw.git"
    made = plan("Hub survey", datasets={"raw": remote}, local=True)
    assert made.state == "ready"
    assert [(new.name, new.master) for new in made.datasets] == [("raw", remote), ("sums", None)]
    described = made.datasets[1].record("/srv/sums.git")
    assert (described.master, described.nodes) == ("/srv/sums.git", [])


def test_plan_of_installed_pipeline_changes_nothing() -> None:
    made = plan("Hub survey", installed())
    assert set(states(made).values()) == {"unchanged"}
    assert (made.state, made.tools, made.datasets, made.enrols) == ("installed", [], [], False)


def test_plan_of_registered_pipeline_enrols() -> None:
    made = plan("Hub survey", installed(enrolled=frozenset()))
    assert (states(made)["enrolment/Hub-survey"], made.enrols, made.state) == ("created", True, "ready")


@pytest.mark.parametrize("existing", ["refuse", "keep", "replace"])
def test_plan_tool_that_differs(existing: str) -> None:
    mine = Tool(name="crawler", image="mine:1", author="me", description="mine")
    known = installed(tools={**installed().tools, "crawler": mine}, enrolled=frozenset())
    made = plan("Hub survey", known, existing=existing)
    expected = {"refuse": "differs", "keep": "kept", "replace": "replaced"}[existing]
    item = next(item for item in made.items if item.kind == "tool")
    assert (item.state, item.changes) == (expected, ["image: 'mine:1' → 'lab/crawler:1.4'"])
    assert bool(made.blocking) == (existing == "refuse")
    replaced = [(tool.image, tool.author, tool.description) for tool in made.replaced_tools]
    assert replaced == ([("lab/crawler:1.4", "me", "mine")] if existing == "replace" else [])


def test_plan_tool_tuned_by_operator_is_unchanged() -> None:
    tuned = Tool(name="crawler", image="lab/crawler:1.4", limits={"memory": "2g"}, description="ours")
    made = plan("Hub survey", installed(tools={**installed().tools, "crawler": tuned}))
    assert states(made)["tool/crawler"] == "unchanged"


@pytest.mark.parametrize("existing", ["refuse", "keep", "replace"])
def test_plan_pipeline_that_differs(existing: str) -> None:
    wanted = installed().pipelines["Hub-survey"]
    first = wanted.steps[0].model_copy(update={"command": ["--some"]})
    other = wanted.model_copy(update={"steps": [first, wanted.steps[1]], "overlap": "queue"})
    made = plan("Hub survey", installed(pipelines={"Hub-survey": other}), existing=existing)
    item = made.items[0]
    assert item.changes == [
        "overlap: 'queue' → 'skip'",
        "step acquire: command: ['--some'] → ['--all']",
    ]
    assert (made.replaces_pipeline, made.enrols) == (existing == "replace", existing == "replace")
    assert bool(made.blocking) == (existing == "refuse")


def test_plan_pipeline_of_other_title_is_refused() -> None:
    other = Pipeline(title="Hub / survey", steps=[{"tool": "crawler", "dataset": "raw"}])  # type: ignore[call-arg]
    assert other.name == "Hub-survey"
    made = plan("Hub survey", installed(pipelines={"Hub-survey": other}))
    assert (states(made), made.state) == ({"pipeline/Hub-survey": "refused"}, "unusable")


@pytest.mark.parametrize("existing", ["refuse", "keep", "replace"])
def test_plan_dataset_with_other_remote_is_never_moved(existing: str) -> None:
    made = plan("Hub survey", installed(), datasets={"raw": "/srv/other"}, existing=existing)
    assert states(made)["dataset/raw"] == ("kept" if existing == "keep" else "differs")
    assert made.datasets == []


def test_plan_unknown_tool_is_missing_until_given() -> None:
    made = plan("unknown-tool", local=True)
    assert states(made)["tool/nobody-has-it"] == "missing"
    assert "--image nobody-has-it=IMAGE" in str(made.blocking[0].next)
    given = plan("unknown-tool", local=True, images={"nobody-has-it": "lab/own:1"})
    assert ([tool.image for tool in given.tools], given.state) == (["lab/own:1"], "ready")


def test_plan_given_image_replaces_catalogues() -> None:
    made = plan("Hub survey", local=True, images={"crawler": "mine:2"})
    assert [(tool.image, tool.author) for tool in made.tools] == [("mine:2", "lab"), ("lab/summary:2", "lab")]
    assert made.images == ["mine:2", "lab/summary:2"]


@pytest.mark.parametrize(
    ("name", "secret", "variable"),
    [("with-secret", "crawler-api-key", "API_KEY"), ("by-tool", "hub-token", "TOKEN")],
)
@pytest.mark.parametrize(
    ("kept", "state", "of_plan"),
    [([], "missing", "incomplete"), (None, "unknown", "ready"), (["SECRET"], "unchanged", "ready")],
)
def test_plan_private_variable_becomes_a_secret(
    name: str, secret: str, variable: str, kept: list[str] | None, state: str, of_plan: str
) -> None:
    known = Known(secrets=None if kept is None else frozenset(secret for _ in kept))
    made = plan(name, known, local=True, agree=[f"secret {secret}"])
    item = next(item for item in made.items if item.kind == "secret")
    assert (item.name, item.state, made.state) == (secret, state, of_plan)
    assert f"${variable}" in item.detail or state == "unknown"
    assert item.next == (f"Set it: maoctl secret set {secret}" if state == "missing" else None)


def test_plan_private_variable_in_a_command_is_refused() -> None:
    step = {"tool": "crawler", "output_dataset": "raw", "cmd": ["--key", PLACEHOLDER]}
    catalogue = read_lab(pipelines=[{"name": "p", "steps": [step]}])
    entry = catalogue.find("pipelines", "p")
    assert entry is not None
    made = make_plan(entry, catalogue, Known(), InstallChoices(local=True))
    assert (made.state, [item.kind for item in made.items if item.state == "refused"]) == (
        "unusable",
        ["variable"],
    )


def test_plan_private_variable_of_registered_tool_does_not_matter() -> None:
    """The node's own tool is used, not the catalogue's."""
    made = plan("by-tool", installed(tools={"hub": Tool(name="hub", image="lab/hub", env={"TOKEN": "x"})}))
    assert not [item for item in made.items if item.kind == "secret"]


def test_plan_privileges_need_agreement() -> None:
    made = plan("rooted", local=True)
    item = next(item for item in made.items if item.kind == "privilege")
    assert (item.state, item.next) == ("missing", "Grant it on this node: --agree 'docker socket'")
    assert "root on this host" in item.detail
    assert plan("rooted", local=True, agree=["docker socket"]).state == "ready"
    granted = Known(granted={"rooted": {("crawler", "docker socket")}})
    assert plan("rooted", granted, local=True).state == "ready"


@pytest.mark.parametrize(
    ("here", "pull", "state"),
    [(True, "missing", "unchanged"), (False, "missing", "pulled"), (False, "never", "missing")],
)
def test_plan_images(here: bool, pull: str, state: str) -> None:
    made = plan("crawler", Known(images={"lab/crawler:1.4": here}), "tools", pull=pull)
    assert states(made) == {"tool/crawler": "created", "image/lab/crawler:1.4": state}


def test_plan_federation_is_information() -> None:
    made = plan("Hub Observatory", kind="federations")
    assert (made.items, made.state) == ([], "information")


def test_plan_dataset_entry_without_remote_needs_one() -> None:
    assert states(plan("sums", kind="datasets")) == {"dataset/sums": "missing"}
    made = plan("sums", kind="datasets", local=True)
    assert (made.state, [new.name for new in made.datasets]) == ("ready", ["sums"])
