"""The original's client against a real node: all CLI commands, the installer and the marketplace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node
from tests.support.original_client import OriginalClient, OriginalInstaller, make_step

pytestmark = [pytest.mark.docker, pytest.mark.etcd]
MARKETPLACE = Path(__file__).resolve().parents[3] / "shared/data/marketplace"
Pipelines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    with native_node(tmp_path_factory.mktemp("original")) as node:
        yield node


@pytest.fixture
def client(node: NativeNode) -> Iterator[OriginalClient]:
    client = OriginalClient(node.url)
    yield client
    client.close()


@pytest.fixture
def installer(node: NativeNode) -> Iterator[OriginalInstaller]:
    installer = OriginalInstaller(node.url)
    yield installer
    installer.close()


def step(name: str, output: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "tool": "made-up", "input_dataset": None, "output_dataset": output} | fields


MADE_UP: Pipelines = [
    {"name": "Übersicht über Größen", "steps": [step("s", "sizes", cmd=None, env=None)]},
    {"name": "a/b: stars ★ & more?", "steps": [step("s", "slashes", cmd="", docker_socket="false")]},
    {"name": "🚀🛰", "steps": [step("s", "emoji", cmd={}, env={"LEVEL": "high"})]},
    {"name": "long " + "x" * 195, "steps": [step("s", "long", cmd=[], docker_socket=None)]},
    {"name": "Socket by a word", "steps": [step("s", "socket", cmd=[], docker_socket="true")]},
    {"name": "plain-name", "description": "", "steps": [step("First things first", "plain", cmd=["true"])]},
]


def marketplace(name: str) -> Pipelines:
    path = MARKETPLACE / name
    if not path.exists():
        pytest.skip(f"the original's marketplace is not at {path}")
    found: Pipelines = json.loads(path.read_text())
    return found


def test_original_client_every_command_of_its_cli(
    node: NativeNode, client: OriginalClient, tool_image: str, tmp_path: Path
) -> None:
    """Run the commands in the order of use, and parse each answer as the original CLI did."""
    assert client.tool_add("probe", "lab", tool_image, "d", "c", "helm-charts")["name"] == "probe"
    assert client.tool_get() == ["probe"]
    kept = json.loads(client.tool_get("probe"))
    assert kept == {"author": "lab", "image": tool_image, "data_repo": "d", "code_repo": "c"} | {
        "artefact": "helm-charts"
    }
    assert client.dataset_add("raw", str(bare_repository(tmp_path / "raw.git")))["name"] == "raw"
    path = client.repo_add("local")["path"]
    assert Path(path).is_dir()
    assert client.repo_add("local")["path"] == path
    client.dataset_add("local", path)
    assert client.dataset_get() == ["local", "raw"]
    assert json.loads(client.dataset_get("local")) == {"master": path, "nodes": []}

    steps = [make_step("collect", "probe", "", "raw"), make_step("sum_up", "probe", "raw", "local")]
    made = client.pipeline_add("my_pipeline", "As the CLI makes it", steps)
    assert (made["ok"], made["name"], made["steps"]) == (True, "my_pipeline", steps)
    assert client.pipeline_get() == ["my_pipeline"]
    assert client.pipeline_get("my_pipeline") == steps
    run = client.pipeline_run("my_pipeline")
    assert node.wait_run(run["id"])["steps"][0]["exit"]["code"] == 0

    job = client.pipeline_run("my_pipeline", "0 4 1 1 *")["id"]
    scheduled = client.tool_list_scheduled()
    assert list(scheduled) == [job]
    assert scheduled[job].endswith("-01-01 04:00:00+00:00")
    assert client.tool_stop(job)["removed"] == job
    assert client.tool_list_scheduled() == {}
    client.pipeline_run("my_pipeline", "0 4 1 1 *")
    assert client.tool_stop("my_pipeline")["removed"] == job  # the original named jobs after their pipeline

    refused = client.tool_remove("probe")  # the original kept a pipeline whose tool had been removed
    assert refused["code"] == "still-referenced"
    assert client.dataset_remove("raw") == "'raw' could not be deleted"
    node.maoctl("pipeline", "withdraw", "my_pipeline", "--yes")
    assert client.call("DELETE", "registry/pipelines/my_pipeline").json()["removed"] == "my_pipeline"
    assert client.tool_remove("probe")["removed"] == "probe"
    assert [client.dataset_remove(name) for name in ("raw", "local")] == [
        "'raw' is deleted",
        "'local' is deleted",
    ]
    assert (client.tool_get(), client.dataset_get(), client.pipeline_get()) == ([], [], [])


def test_original_client_commands_that_are_refused_print_why(client: OriginalClient) -> None:
    for answer in (
        client.tool_get("nobody"),
        client.tool_remove("nobody"),
        client.tool_stop("nobody"),
        client.dataset_get("nowhere"),
        client.pipeline_get("No such pipeline"),
        client.pipeline_run("No such pipeline"),
    ):
        assert answer["status"] == 404
        assert answer["detail"]
    assert client.dataset_remove("nowhere") == "'nowhere' could not be deleted"
    missing = client.pipeline_add("p", "", [make_step("s", "no-tool", "no-input", "no-output")])
    assert missing["missing_tools"] == ["no-tool"]
    assert missing["missing_datasets"] == ["no-input", "no-output"]
    [wrong] = client.pipeline_add("p", "", [make_step("s", "a tool", "", "d")])
    assert wrong["field"] == "steps[0].tool"


@pytest.mark.parametrize("source", ["marketplace", "made-up"])
def test_original_client_pipeline_refusal_names_the_missing_agreement(
    source: str, installer: OriginalInstaller, node: NativeNode, tool_image: str
) -> None:
    pipelines = marketplace("pipelines.json") if source == "marketplace" else MADE_UP
    market = marketplace("tools.json") if source == "marketplace" else [{"name": "made-up"}]
    tools = [{"author": "", "data_repo": "", "code_repo": "", "artefact": ""} | tool for tool in market]
    tools = [tool | {"image": tool_image} for tool in tools]  # the original images are not on this machine
    before = installer.call("POST", "pipeline/init", pipelines[0]).json()
    first = pipelines[0]["steps"][0]
    assert before["errors"] == {
        "missing_tools": [first["tool"]],
        "missing_datasets": [first["output_dataset"]],
    }
    assert first["tool"] in before["detail"]
    assert first["output_dataset"] in before["detail"]

    for pipeline in pipelines:
        result = installer.install(pipeline, tools)
        if any(step.get("docker_socket") in (True, "true") for step in pipeline["steps"]):
            assert result["code"] == "agreement-needed"
            assert "docker socket (root on this host" in result["errors"]["refused"]
            assert "--agree 'docker socket'" in result["next"]
            result = installer.call("POST", "pipeline/init", pipeline | {"agree": ["docker socket"]}).json()
        assert (result["ok"], result["name"]) == (True, pipeline["name"]), result

    names = [pipeline["name"] for pipeline in pipelines]
    assert set(names) <= set(installer.pipeline_get())
    assert {p["name"] for p in installer.pipelines() if p["federation_registered"]} >= {
        name for name in names if "?" not in name and "/" not in name
    }
    assert {tool["name"] for tool in installer.tools()} >= {tool["name"] for tool in market}
    assert all(set(dataset) == {"name", "master", "nodes"} for dataset in installer.datasets())
    known = {p.get("title", p["name"]): p["name"] for p in node.http.get("/pipeline").json()["items"]}
    for name in names:
        assert installer.call("POST", "pipeline/init", {"name": name, "steps": []}).status_code == 422
        path = quote(name, safe="")
        assert node.http.get(f"/registry/pipelines/{path}").json()["name"] == known[name]
        assert node.http.get(f"/pipeline/{path}/diff").json()["pipeline"] == known[name]
        assert node.http.get(f"/enrolments/{path}").json()["pipeline"] == known[name]
        shown = json.loads(node.maoctl("pipeline", "get", name, "-o", "json").stdout)
        assert shown["name"] == known[name]
        job = installer.pipeline_run(name, "0 4 1 1 *")
        assert job["pipeline"] == known[name]
        assert node.http.delete(f"/jobs/{job['id']}").json()["removed"] == job["id"]
