"""`maoctl apply|diff|schema`: folders, every kind, what `get -o json` prints, removal, the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mao_shared.models import Schedule
from mao_shared.models.schedule import schedule_id
from maoctl.declared import KINDS
from maoctl.output import APPLIED
from maoctl.schemas import describe_files

from . import documents
from .conftest import Maoctl
from .gateways import RememberingGateway

NOUNS = (
    *("tool", "dataset", "pipeline", "job", "webhook"),
    *("alarm channel", "alarm rule", "alarm heartbeat"),
)
CRON = {"pipeline": "daily", "cron": "30 2 * * *", "timezone": "Europe/Zurich"}


def job(**fields: Any) -> documents.Json:
    wanted = {**CRON, **fields}
    schedule = Schedule.model_validate(wanted | {"id": "x", "created_at": documents.ago(9)})
    return documents.job(schedule_id("daily", schedule), **wanted) | {"next": None, "last": None}


def enrolment() -> documents.Json:
    spec = documents.step()["spec"]
    basis = {"pipeline": "daily", "node": "node-1", "steps": [spec], "pipeline_revision": 7}
    return {**basis, "enrolled_at": documents.ago(9), "agreed": ["host network"]}


def webhook() -> documents.Json:
    return {"name": "lab", "url": "https://lab.example.org/x", "created_at": documents.ago(9), "waiting": 2}


def channel() -> documents.Json:
    state = {"created_at": documents.ago(9), "waiting": 2, "given_up": 1, "last_error": "timed out"}
    return {"name": "mail", "service": "mailtos", "url": "mailtos://…", **state}


def rule(**fields: Any) -> documents.Json:
    quiet = {"start": "22:00", "end": "07:00", "timezone": "Europe/Zurich"}
    return {"name": "night", "channels": ["mail"], "quiet": quiet, "reminder": 43_200.0, **fields}


def heartbeat() -> documents.Json:
    pinged = {"created_at": documents.ago(9), "last": "success", "last_at": documents.ago(2)}
    return {"pipeline": "daily", "url": "https://hc.example.org/…", "last_error": None, **pinged}


@pytest.fixture
def node(gateway: RememberingGateway) -> RememberingGateway:
    """A node with one record of each kind that can be declared."""
    gateway.keep("/registry/tools", documents.tool())
    gateway.keep("/registry/datasets", documents.dataset())
    gateway.keep("/registry/pipelines", documents.pipeline())
    state = {"enrolled": True, "outdated": False, "pending": [], "enrolment": enrolment()}
    gateway.answer("GET", "/pipeline", {"items": [{**documents.pipeline(), **state}], "cursor": None})
    gateway.keep("/datasets", documents.dataset_status())
    gateway.keep("/enrolments", enrolment(), key="pipeline")
    gateway.keep("/jobs", job(), key="id")
    gateway.keep("/webhooks", webhook())
    gateway.keep("/channels", channel())
    gateway.keep("/rules", rule())
    gateway.keep("/heartbeats", heartbeat(), key="pipeline")
    return gateway


def writes(gateway: RememberingGateway) -> list[tuple[str, str]]:
    return [(call.method, call.path) for call in gateway.calls if call.method != "GET"]


@pytest.mark.parametrize("how", ["json", "yaml"])
@pytest.mark.parametrize("verb", ["get", "show"])
@pytest.mark.parametrize("noun", NOUNS)
def test_what_get_prints_applies_unchanged(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path, noun: str, verb: str, how: str
) -> None:
    [name] = maoctl(*noun.split(), "get", "-o", "name").out.split()
    node.answer("GET", f"/jobs/{name.removeprefix('job/')}/next", {"times": ["2026-02-01T01:30:00Z"]})
    shown = maoctl(*noun.split(), verb, name, "-o", how)
    file = tmp_path / f"shown.{how}"
    file.write_text(shown.out, "utf-8")

    for _ in range(2):
        applied = maoctl("apply", "-f", str(file))
        assert (applied.code, applied.out) == (0, f"{name} unchanged\n"), applied.err
    assert maoctl("diff", "-f", str(file)).code == 0
    assert writes(node) == []


@pytest.mark.parametrize("noun", NOUNS)
def test_a_list_applies_as_json(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path, noun: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(maoctl(*noun.split(), "get", "-o", "json").out, "utf-8")

    applied = maoctl("apply", "-f", str(file))

    assert applied.out.endswith(" unchanged\n"), applied.err
    assert writes(node) == []


def test_enrolment_as_the_node_shows_it_applies(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    node.answer("PUT", "/enrolments/daily", enrolment())
    file = tmp_path / "enrolment.json"
    file.write_text(maoctl("pipeline", "enrol", "daily", "-o", "json").out, "utf-8")

    assert maoctl("apply", "-f", str(file)).out == "enrolment/daily unchanged\n"

    file.write_text("{kind: enrolment, pipeline: daily, agree: ['user root']}", "utf-8")
    assert maoctl("apply", "-f", str(file)).out == "enrolment/daily updated\n"
    assert node.called("PUT", "/enrolments/daily")[-1].body["agree"] == ["host network", "user root"]


def test_apply_of_a_folder_in_the_order_of_references(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path
) -> None:
    gateway.answer("PUT", "/enrolments/daily", enrolment())
    gateway.answer("POST", "/pipeline/run", job(), 201)
    gateway.answer("POST", "/webhooks", webhook() | {"secret": "s3cret"}, 201)
    (tmp_path / "a").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "broken.yaml").write_text("[", "utf-8")
    (tmp_path / "notes.txt").write_text("[", "utf-8")
    (tmp_path / "a" / "jobs.yml").write_text(yaml.safe_dump({"kind": "job", **CRON}), "utf-8")
    (tmp_path / "a" / "hook.json").write_text(
        json.dumps({"kind": "webhook", "name": "lab", "url": "https://lab.example.org/x"}), "utf-8"
    )
    (tmp_path / "records.yaml").write_text(
        yaml.safe_dump_all(
            [
                {"kind": "enrolment", "pipeline": "daily", "agree": ["host network"]},
                {"kind": "pipeline", "name": "daily", "steps": [{"tool": "crawler", "dataset": "data"}]},
                {"kind": "dataset", "name": "data", "master": "/srv/git/data.git"},
                {"kind": "tool", "name": "crawler", "author": "me", "image": "lab/crawler:1"},
            ]
        ),
        "utf-8",
    )

    done = maoctl("apply", "-f", str(tmp_path))

    assert done.code == 0, done.err
    names = ["tool/crawler", "dataset/data", "pipeline/daily", "enrolment/daily", job()["id"], "webhook/lab"]
    assert [line.split()[0].removeprefix("job/") for line in done.out.splitlines()] == names
    assert {line.split()[1] for line in done.out.splitlines()} == {"created"}
    assert "s3cret" in done.err
    assert "s3cret" not in done.out
    assert "maoctl pipeline enrol" not in done.err  # the file declares the enrolment


def test_apply_of_a_changed_pipeline_says_how_to_approve_it(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    file = tmp_path / "daily.yaml"
    file.write_text(maoctl("pipeline", "get", "daily", "-o", "yaml").out + "description: new\n", "utf-8")

    done = maoctl("apply", "-f", str(file))

    assert done.out == "pipeline/daily updated\n", done.err
    assert done.err == "next: maoctl pipeline approve daily\n"
    assert maoctl("apply", "-f", str(file), "--dry-run").err == ""


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"paused": True}, ["POST /jobs/{id}/pause"]),
        ({"catch_up": "all"}, ["DELETE /jobs/{id}", "POST /pipeline/run"]),
    ],
)
def test_apply_of_a_changed_job(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path, fields: documents.Json, calls: list[str]
) -> None:
    known = job()["id"]
    node.answer("POST", f"/jobs/{known}/pause", job(paused=True))
    node.answer("POST", "/pipeline/run", job(**fields), 201)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"kind": "job", **CRON, **fields}), "utf-8")

    assert maoctl("apply", "-f", str(file), "--dry-run").out == f"job/{known} updated (dry run)\n"
    assert writes(node) == []
    assert maoctl("apply", "-f", str(file)).out == f"job/{known} updated\n"
    assert [f"{method} {path}" for method, path in writes(node)] == [call.format(id=known) for call in calls]


def test_apply_puts_a_job_back_that_the_node_refuses_to_change(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    node.problem("POST", "/pipeline/run", 409, "not-enrolled")
    node.answer("POST", "/pipeline/run", job(), 201)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"kind": "job", **CRON, "catch_up": "all"}), "utf-8")

    assert maoctl("apply", "-f", str(file)).code == 5
    again = [call.body.get("catch_up") for call in node.called("POST", "/pipeline/run")]
    assert again == ["all", "latest"]


def test_apply_refuses_another_address_of_a_webhook(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    file = tmp_path / "hook.yaml"
    file.write_text("{kind: webhook, name: lab, url: 'https://other.example.org'}", "utf-8")

    refused = maoctl("apply", "-f", str(file))

    assert refused.code == 5
    assert "next: Remove it first: maoctl webhook remove lab" in refused.err
    assert writes(node) == []


SECRET = "t0ps3cret"
URLS = {
    "channel": ("mail", "name: mail", f"mailtos://me:{SECRET}@smtp.example.org", "/channels/mail"),
    "heartbeat": ("daily", "pipeline: daily", f"https://hc.example.org/{SECRET}", "/heartbeats/daily"),
}


@pytest.mark.parametrize("kind", URLS)
@pytest.mark.parametrize("same", [True, False])
def test_apply_lets_the_node_compare_a_url_that_it_does_not_show(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path, kind: str, same: bool
) -> None:
    name, key, url, path = URLS[kind]
    node.answer("POST", f"{path}/compare", {"same": same})
    node.answer("PUT", path, channel() if kind == "channel" else heartbeat())
    file = tmp_path / "secret.yaml"
    file.write_text(f"{{kind: {kind}, {key}, url: '{url}'}}", "utf-8")

    shown = maoctl("diff", "-f", str(file))
    assert (shown.code, SECRET in shown.out + shown.err) == (0 if same else 1, False)
    assert ("(another one)" in shown.out) is not same
    assert maoctl("apply", "-f", str(file), "--dry-run").code == 0
    assert node.called("PUT", path) == []
    done = maoctl("apply", "-f", str(file))
    assert done.out == f"{kind}/{name} {'unchanged' if same else 'updated'}\n"
    assert [call.body["url"] for call in node.called("PUT", path)] == ([] if same else [url])
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize("kind", URLS)
@pytest.mark.parametrize("known", [True, False])
def test_apply_refuses_a_masked_url_that_is_not_the_nodes(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path, kind: str, known: bool
) -> None:
    name, key, _, path = URLS[kind]
    if not known:
        node.kept[path.rpartition("/")[0]].clear()
    file = tmp_path / "masked.yaml"
    file.write_text(f"{{kind: {kind}, {key}, url: 'https://other.example.org/…'}}", "utf-8")

    refused = maoctl("apply", "-f", str(file))

    assert refused.code != 0
    assert f"The URL of {kind}/{name} is masked" in refused.err
    assert "--url-file FILE" in refused.err
    assert writes(node) == []


def test_apply_of_a_changed_rule(maoctl: Maoctl, node: RememberingGateway, tmp_path: Path) -> None:
    node.answer("PUT", "/rules/night", rule(reminder=3600.0))
    file = tmp_path / "rule.yaml"
    file.write_text("{kind: rule, name: night, channels: [mail], reminder: 1h}", "utf-8")

    assert maoctl("apply", "-f", str(file)).out == "rule/night updated\n"
    assert node.called("PUT", "/rules/night")[-1].body["reminder"] == 3600.0


def test_prune_removes_rules_before_their_channels(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    node.answer("POST", "/channels", channel() | {"name": "phone"}, 201)
    node.answer("PUT", "/rules/day", rule(name="day"))
    for path in ("/channels/mail", "/rules/night"):
        node.answer("DELETE", path, None, 204)
    file = tmp_path / "new.yaml"
    file.write_text(
        "[{kind: channel, name: phone, url: 'ntfys://ntfy.example.org/x'}, {kind: rule, name: day}]", "utf-8"
    )

    done = maoctl("apply", "-f", str(file), "--prune", "--yes")

    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        *("channel/phone created", "rule/day created"),
        *("rule/night removed", "channel/mail removed"),
    ]


def test_diff_shows_what_apply_would_change(
    maoctl: Maoctl, node: RememberingGateway, federation_file: Path
) -> None:
    federation_file.write_text(federation_file.read_text("utf-8").replace("1.4", "1.5"), "utf-8")

    shown = maoctl("diff", "-f", str(federation_file))

    assert shown.code == 1
    assert "--- node/tool/crawler\n+++ file/tool/crawler\n" in shown.out
    assert "-image: lab/crawler:1.4\n+image: lab/crawler:1.5\n" in shown.out
    listed = json.loads(maoctl("diff", "-f", str(federation_file), "-o", "json").out)
    assert ("tool", "crawler", "updated") in [(c["kind"], c["name"], c["result"]) for c in listed]
    assert writes(node) == []


def test_apply_keeps_the_nodes_that_enrolled_in_a_dataset(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    file = tmp_path / "data.yaml"
    for text, nodes in (
        ("", ["node-1"]),
        (", description: new", ["node-1"]),
        (", nodes: [node-2]", ["node-2"]),
    ):
        file.write_text(f"{{kind: dataset, name: data, master: /srv/git/data.git{text}}}", "utf-8")
        assert maoctl("apply", "-f", str(file)).code == 0
        assert node.kept["/registry/datasets"]["data"]["nodes"] == nodes
        assert maoctl("diff", "-f", str(file)).code == 0
    assert len(node.called("PUT", "/registry/datasets/data")) == 2


def test_diff_of_a_new_record(maoctl: Maoctl, gateway: RememberingGateway, federation_file: Path) -> None:
    shown = maoctl("diff", "-f", str(federation_file))

    assert shown.code == 1
    assert "--- /dev/null\n+++ file/tool/crawler\n" in shown.out
    assert maoctl("diff", "-f", str(federation_file), "-o", "name").out.split() == [
        "tool/crawler",
        "dataset/data",
        "pipeline/daily",
    ]
    assert gateway.kept == {}


def test_prune_removes_what_is_not_declared_of_the_declared_kinds(
    maoctl: Maoctl, node: RememberingGateway, tmp_path: Path
) -> None:
    node.keep("/registry/tools", documents.tool("old"), documents.tool("older"))
    file = tmp_path / "tools.yaml"
    file.write_text(yaml.safe_dump({"kind": "tool", **documents.tool()}), "utf-8")
    prune = ("apply", "-f", str(file), "--prune")

    unasked = maoctl(*prune)
    assert unasked.code == 2
    assert "for the whole federation. Remove tool/old, tool/older?" in unasked.err
    assert "stdin is not a terminal; use --yes." in unasked.err
    assert writes(node) == []
    assert "tool/old removed (dry run)\n" in maoctl(*prune, "--dry-run").out
    assert set(node.kept["/registry/tools"]) == {"crawler", "old", "older"}

    done = maoctl(*prune, "--yes")

    assert done.out == "tool/crawler unchanged\ntool/old removed\ntool/older removed\n"
    assert set(node.kept["/registry/tools"]) == {"crawler"}
    assert set(node.kept["/registry/datasets"]) == {"data"}  # the file declares no dataset
    assert maoctl(*prune).out == "tool/crawler unchanged\n"


def test_apply_names_the_file_that_cannot_be_read(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("{kind: dataset, name: x, master: /x}", "utf-8")
    (tmp_path / "b.yaml").write_text("a: [", "utf-8")

    refused = maoctl("apply", "-f", str(tmp_path))

    assert refused.code == 2
    assert f"{tmp_path / 'b.yaml'} cannot be read as YAML or JSON" in refused.err
    assert gateway.calls == []


@pytest.mark.parametrize("empty", [".", "missing.yaml"])
def test_apply_of_no_file(maoctl: Maoctl, tmp_path: Path, empty: str) -> None:
    assert maoctl("apply", "-f", str(tmp_path / empty)).code == 2


# The schema


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from ([schema["$ref"]] if "$ref" in schema else [])
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_schema_resolves_and_covers_every_kind() -> None:
    schema = describe_files(APPLIED)

    assert set(references(schema)) <= {f"#/$defs/{name}" for name in schema["$defs"]}
    for kind in APPLIED:
        described = schema["$defs"][kind]
        assert described["properties"]["kind"] == {"const": kind}
        assert described["additionalProperties"] is False
        assert set(KINDS[kind].model.model_fields) <= set(described["properties"])
        assert described["required"][0] == "kind"


@pytest.mark.parametrize("noun", NOUNS)
def test_schema_knows_every_field_that_get_prints(
    maoctl: Maoctl, node: RememberingGateway, noun: str
) -> None:
    [shown] = json.loads(maoctl(*noun.split(), "get", "-o", "json").out)
    kind = noun.split()[-1]
    assert set(shown) <= set(describe_files([kind])["$defs"][kind]["properties"])


def test_schema_of_one_kind(maoctl: Maoctl) -> None:
    assert json.loads(maoctl("schema", "job").out)["$defs"]["job"]["properties"]["cron"]
    assert maoctl("schema", "moon").code == 2


# `-o name`


@pytest.mark.parametrize("noun", [*NOUNS[:5], "run", "node", "alarm", "series"])
def test_names_are_accepted_by_show(maoctl: Maoctl, node: RememberingGateway, noun: str) -> None:
    alarm = {"id": "a1", "kind": "spike", "node": "node-1", "raised_at": documents.ago(9), "detail": "d"}
    point = {"time": documents.ago(9), "value": 1.5, "run": documents.run()["id"]}
    series = {"pipeline": "daily", "step": "crawl", "metric": "rows", "points": [point]}
    node.keep("/runs", documents.run(), key="id")
    node.keep("/federation/nodes", documents.node())
    node.keep("/alarms", alarm, key="id")
    node.answer("GET", "/series", {"items": [series], "cursor": None})
    node.answer("GET", "/series/daily/crawl/rows", series)
    node.answer("GET", f"/jobs/{job()['id']}/next", {"times": []})

    [name] = maoctl(noun, "list", "-o", "name").out.split()

    assert name.startswith(f"{noun}/")
    shown = maoctl(noun, "show", name, "-o", "name")
    assert (shown.code, shown.out) == (0, f"{name}\n"), shown.err
    assert maoctl(noun, "get", name, "-o", "json").code == 0
    assert maoctl("describe", name, "-o", "name").out == f"{name}\n"


@pytest.mark.parametrize(
    ("noun", "path"),
    [
        ("tool", "/registry/tools/crawler"),
        ("dataset", "/registry/datasets/data"),
        ("pipeline", "/registry/pipelines/daily"),
        ("job", f"/jobs/{job()['id']}"),
        ("webhook", "/webhooks/lab"),
        ("node", "/registry/nodes/node-1"),
    ],
)
def test_names_are_accepted_by_remove(maoctl: Maoctl, node: RememberingGateway, noun: str, path: str) -> None:
    node.keep("/federation/nodes", documents.node())
    node.answer("DELETE", "/registry/nodes/node-1", {"removed": "node-1", "detail": ""})
    [name] = maoctl(noun, "list", "-o", "name").out.split()

    assert maoctl("rm", name, "--yes").code == 0

    assert len(node.called("DELETE", path)) == 1
