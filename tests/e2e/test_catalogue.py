"""Catalogues against a real node: from an entry to a succeeded run, and the original's whole marketplace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
MARKETPLACE = Path(__file__).resolve().parents[3] / "shared/data/marketplace"
SECRET = "ArtifactHUB Collector with Helm download"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tool_image: str) -> Iterator[NativeNode]:
    """A node with a catalogue of its own, whose tool's image is on this machine."""
    folder = tmp_path_factory.mktemp("catalogue")
    catalogue = folder / "lab.json"
    step = {"name": "acquire", "tool": "probe", "cmd": [], "env": {"DEPTH": 3}, "output_dataset": "probes"}
    copy = {"name": "sum up", "tool": "probe", "input_dataset": "probes", "output_dataset": "sums"}
    entries = {
        "tools": [{"name": "probe", "author": "lab", "image": tool_image, "artefact": "lines"}],
        "pipelines": [{"name": "Probe & sum", "description": "Two steps.", "steps": [step, copy]}],
    }
    catalogue.write_text(json.dumps(entries))
    with native_node(folder, env={"MAO_CATALOGUES": f"lab={catalogue}"}) as node:
        yield node


def entries(node: NativeNode, *args: str) -> dict[str, dict[str, Any]]:
    """Return the entries that a list prints, by title or name."""
    listed = json.loads(node.maoctl("catalogue", "list", *args, "-o", "json").stdout)
    return {entry.get("title", entry["name"]): entry for entry in listed}


def test_catalogue_from_entry_to_succeeded_run(node: NativeNode) -> None:
    entry = entries(node)["Probe & sum"]
    assert (entry["source"], entry["state"]) == ("lab", "incomplete")
    refused = node.maoctl("catalogue", "install", "Probe & sum", check=False)
    assert refused.returncode == 2
    assert "--dataset probes=URL" in refused.stderr
    assert "--local" in refused.stderr
    assert node.http.get("/registry/tools").json()["items"] == []
    planned = node.maoctl("catalogue", "install", "Probe & sum", "--local", "--dry-run")
    assert "pipeline/Probe-sum ready (dry run)" in planned.stderr
    assert node.http.get("/registry/tools").json()["items"] == []

    node.maoctl("catalogue", "install", "Probe & sum", "--local")
    run = json.loads(node.maoctl("pipeline", "run", "Probe & sum", "--wait", "-o", "json").stdout)
    assert (run["phase"], [step["phase"] for step in run["steps"]]) == ("succeeded", ["succeeded"] * 2)

    again = node.maoctl("catalogue", "install", "Probe & sum")
    assert "pipeline/Probe-sum unchanged" in again.stderr
    assert entries(node)["Probe & sum"]["state"] == "installed"


def test_catalogue_installation_is_audited_and_a_plan_is_not(node: NativeNode) -> None:
    node.maoctl("catalogue", "install", "Probe & sum", "--local")
    actions = [entry["action"] for entry in node.http.get("/audit", params={"limit": 1000}).json()["items"]]
    assert "catalogue.install" in actions
    assert "catalogue.plan" not in actions


def test_catalogue_original_every_entry_runs_or_says_what_is_missing(
    node: NativeNode, tool_image: str, tmp_path: Path
) -> None:
    if not MARKETPLACE.is_dir():
        pytest.skip(f"the original's marketplace is not at {MARKETPLACE}")
    source = ["--from", str(MARKETPLACE / "pipelines.json")]
    offered = entries(node, *source)
    assert len(offered) == 8
    tools = json.loads((MARKETPLACE / "tools.json").read_text())
    images = [word for tool in tools for word in ("--image", f"{tool['name']}={tool_image}")]

    bare = node.maoctl("catalogue", "install", "--all", *source, check=False)
    assert bare.returncode == 1
    assert node.http.get("/registry/tools").json()["items"] == [
        tool for tool in node.http.get("/registry/tools").json()["items"] if tool["name"] == "probe"
    ]
    for title, entry in offered.items():
        assert f"Nothing of {title!r} was installed" in bare.stderr
        for item in entry["items"]:
            if item["state"] in ("missing", "refused"):
                assert f"{item['kind']} {item['name']} {item['state']}" in bare.stderr

    given = ["--local", *images, "--agree", "docker socket"]
    done = node.maoctl("catalogue", "install", "--all", *given, *source, check=False)
    assert done.returncode == 1
    assert "ARTIFACT_HUB_API_KEY_ID" in done.stderr
    assert "ARTIFACT_HUB_API_KEY_SECRET" in done.stderr
    lacking = {
        title
        for title, entry in entries(node, *source).items()
        if any((item["kind"], item["state"]) == ("secret", "missing") for item in entry["items"])
    }
    assert lacking == {SECRET}
    installed = {item["pipeline"] for item in node.http.get("/enrolments").json()["items"]}
    assert {entry["name"] for title, entry in offered.items() if title != SECRET} <= installed

    for title, entry in offered.items():
        steps = node.http.get(f"/catalogue/pipelines/{entry['name']}").status_code
        assert steps == 404, "the entries that were sent are not kept"
        if title == SECRET:
            continue
        pipeline = node.http.get(f"/registry/pipelines/{entry['name']}").json()
        if not any(step["command"] for step in pipeline["steps"]):  # commands need the original's images
            run = node.maoctl("pipeline", "run", entry["name"], "--wait", "-o", "json")
            assert json.loads(run.stdout)["phase"] == "succeeded", title

    missing = [item for item in offered[SECRET]["items"] if item["kind"] == "secret"]
    assert len(missing) == 2
    (tmp_path / "key").write_text("not-a-real-key")
    words = []
    for item in missing:
        node.maoctl("secret", "set", item["name"], "--from-file", str(tmp_path / "key"))
        words += ["--agree", f"secret {item['name']}"]
    node.maoctl("catalogue", "install", SECRET, *given, *words, *source)
    used = {state["name"]: state["used_by"] for state in node.http.get("/secrets").json()["items"]}
    assert all(used[item["name"]] for item in missing)
