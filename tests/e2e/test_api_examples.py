"""The examples of the API pages, sent in order to a node: each names what those before it have made."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from mao_shared.web.api_document import operations
from tests.support.docker import Engine
from tests.support.node import REPO, NativeNode

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

BEFORE_RUNS = (
    "bare.init",
    "remotes.check",
    "datasets.create",
    "datasets.ensure",
    "images.resolve",
    "tools.check",
    "tools.create",
    "tools.update",
    "datasets.update",
    "pipelines.create",
    "pipelines.update",
    "pipelines.init",
    "catalogue.inspect",
    "catalogue.plan",
    "catalogue.install",
    "enrolments.put",
    "external.write",
    "insights.list",
    "cron.preview",
    "secrets.set",
    "rules.add",
    "rules.put",
)
NOT_SENT = {
    "federation.create",  # these three change what the node is part of
    "federation.invite",
    "federation.join",
    "pipelines.approve",  # `definition` is that of a pending change
    "alarms.acknowledge",  # there is no alarm
    "datasets.resolve",  # no branch has diverged
    "quarantine.accept",  # nothing is quarantined
    "quarantine.discard",
    "runs.cancel",  # the run has ended
    "webhooks.add",  # the receivers of these are somewhere else
    "channels.add",
    "channels.put",
    "heartbeats.put",
    "channels.compare",  # there are no channels and heartbeats therefore
    "heartbeats.compare",
    "insights.read",  # the example tools write no insights
    "git.lfs",  # git-lfs sends these
}
MISSING = re.compile(r"git@git\.example\.org:mao/([\w-]+)\.git")


class Pages:
    """The node's document, and calls of its operations with their own examples."""

    def __init__(self, node: NativeNode) -> None:
        self.node = node
        self.document = node.http.get("/openapi.json").json()
        self.schemas = self.document["components"]["schemas"]
        found = operations(self.document)
        self.operations = {one["operationId"]: (method, path, one) for method, path, one in found}
        self.masters: dict[str, str] = {}

    def bodies(self, name: str) -> list[dict[str, Any]]:
        """Return the example bodies of an operation, with remotes of this node in place of the others."""
        content = self.operations[name][2]["requestBody"]["content"]["application/json"]
        if "examples" in content:
            shown = [example["value"] for example in content["examples"].values()]
        else:
            shown = [self._from_fields(content["schema"])]
        text = MISSING.sub(lambda found: self.masters[found[1]], json.dumps(shown))
        bodies: list[dict[str, Any]] = json.loads(text)
        return bodies

    def _from_fields(self, schema: dict[str, Any]) -> dict[str, Any]:
        reference = schema.get("$ref") or next(one["$ref"] for one in schema["anyOf"] if "$ref" in one)
        schema = self.schemas[reference.rpartition("/")[2]]
        fields = {n: field for n, field in schema["properties"].items() if field.get("examples")}
        return {name: field["examples"][0] for name, field in fields.items()}

    def send(self, operation_id: str, /, body: Any = None, **given: str) -> httpx.Response:
        """Call an operation; parameters in the path are the examples of the document unless given."""
        method, path, operation = self.operations[operation_id]
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                shown = parameter["schema"].get("examples") or parameter.get("examples")
                value = given.get(parameter["name"]) or shown[0]
                path = path.replace(f"{{{parameter['name']}}}", value)
        answer = self.node.http.request(method.upper(), path, json=body, timeout=120)
        documented = operation["responses"]
        assert answer.is_success, f"{operation_id} {path} {body}: {answer.text}"
        assert str(answer.status_code) in documented, f"{operation_id} answers {answer.status_code}"
        return answer

    def follow(self, name: str, link: str, answer: httpx.Response) -> httpx.Response:
        """Call the operation that a response's link names, with the parameters that it takes from it."""
        target = self.operations[name][2]["responses"][str(answer.status_code)]["links"][link]
        values = {
            parameter: answer.json()[expression.removeprefix("$response.body#/")]
            for parameter, expression in target["parameters"].items()
        }
        return self.send(target["operationId"], **values)


@pytest.fixture(scope="module")
def example_images(engine: Engine) -> None:
    """Skip where the example tools are not built (scripts/machine.sh tool-images)."""
    for folder in sorted((REPO / "examples" / "tools").glob("*/")):
        version = re.search(r'image\.version="(.+)"', (folder / "Dockerfile").read_text())
        assert version is not None
        name = f"mao-example/{folder.name}:{version[1]}"
        if not engine.client.images.list(name):
            pytest.skip(f"the image {name} is not built: run scripts/machine.sh tool-images")


@pytest.fixture
def pages(node: NativeNode, example_images: None) -> Pages:
    return Pages(node)


def test_api_examples_chain_from_repository_to_runs(pages: Pages) -> None:
    for name in ("performance", "performance-summary"):
        made = pages.send("bare.init", {**pages.bodies("bare.init")[0], "name": name})
        pages.masters[name] = made.json()["master"]
    for name in BEFORE_RUNS[1:]:
        for body in pages.bodies(name):
            called = {"name": body["name"]} if "name" in body else {}
            pages.send(name, body, **called)

    once, by_cron = pages.bodies("pipelines.run")
    started = pages.send("pipelines.run", once)
    run = pages.node.wait_run(pages.follow("pipelines.run", "run", started).json()["id"])
    assert run["phase"] == "succeeded", run
    job = pages.follow("pipelines.run", "schedule", pages.send("pipelines.run", by_cron)).json()

    again = pages.send("runs.reproduce", pages.bodies("runs.reproduce")[0], id=run["id"]).json()
    missed = pages.send("jobs.backfill", pages.bodies("jobs.backfill")[0], id=job["id"]).json()["queued"]
    assert len(missed) == 1
    for other in (again["id"], *missed):
        assert pages.node.wait_run(other)["phase"] == "succeeded"
    for name, (method, path, _) in pages.operations.items():
        if method == "get" and path.startswith(("/jobs/{", "/runs/{")) and not path.endswith("/events"):
            of = job if path.startswith("/jobs") else run
            pages.send(name, id=of["id"], run_id=of["id"])
    assert pages.send("jobs.pause", id=job["id"]).json()["paused"]
    pages.send("jobs.delete", id=job["id"])


def test_api_examples_every_body_is_sent_or_named(pages: Pages) -> None:
    with_body = {name for name, (_, _, one) in pages.operations.items() if "requestBody" in one}
    sent = {*BEFORE_RUNS, "pipelines.run", "runs.reproduce", "jobs.backfill"}
    assert with_body == sent | NOT_SENT
    assert not sent & NOT_SENT
