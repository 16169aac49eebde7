"""`maoctl tool|dataset|pipeline|job`: registration, updates, removal; `maoctl apply`."""

from __future__ import annotations

import io
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from . import documents
from .conftest import Maoctl
from .gateways import Call, RememberingGateway

TOOLS = "/registry/tools"


def test_tool_add_takes_the_seed_clients_six_positional_arguments(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    words = ("crawler", "A. Scientist", "lab/crawler:1.4", "https://data", "https://code", "docker-hub")

    result = maoctl("tool", "add", *words)

    assert result.code == 0
    body = gateway.kept[TOOLS]["crawler"]
    assert [body[key] for key in ("name", "author", "image", "data_repo", "code_repo", "artefact")] == list(
        words
    )
    assert gateway.calls[0].headers["idempotency-key"]


def test_tool_add_with_every_option(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    line = (
        "tool add crawler me lab/crawler:1.4 '' '' '' --cpu 1.5 --memory 512m --pids 64 --time 2h --grace 5s "
        "--network host --user root --cap-add NET_RAW --new-privileges -e A=1 -e B=x=y "
        "--command \"crawl --deep 'a b'\""
    )

    assert maoctl(*shlex.split(line)).code == 0

    body = gateway.kept[TOOLS]["crawler"]
    assert body["limits"] == {"cpu": 1.5, "memory": 512 * 1024**2, "pids": 64, "time": 7200.0, "grace": 5.0}
    assert body["command"] == ["crawl", "--deep", "a b"]
    assert body["env"] == {"A": "1", "B": "x=y"}
    assert body["privileges"] == {"user": "root", "capabilities": ["NET_RAW"], "new_privileges": True}


def test_tool_update_keeps_other_fields(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool(env={"A": "1"}, limits={"memory": "1g"}))

    result = maoctl("tool", "update", "crawler", "-e", "B=2", "--time", "2h")

    assert (result.code, result.err) == (0, "tool/crawler updated\n")
    changed = gateway.kept[TOOLS]["crawler"]
    assert changed["env"] == {"A": "1", "B": "2"}
    assert (changed["limits"]["memory"], changed["limits"]["time"]) == (1024**3, 7200)
    assert gateway.called("PUT", f"{TOOLS}/crawler")[0].headers["if-match"] == '"1"'


def test_tool_update_without_a_change_writes_nothing(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool())

    assert maoctl("tool", "set", "crawler", "--author", "A. Scientist").err == "tool/crawler unchanged\n"
    assert gateway.called("PUT", f"{TOOLS}/crawler") == []


def test_tool_update_is_repeated_after_a_lost_race(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool())

    def somebody_is_quicker(call: Call) -> None:
        if call.method == "PUT" and gateway.revision == 1:
            gateway.revision = 2
            gateway.keep(TOOLS, documents.tool(description="theirs"))

    gateway.before = somebody_is_quicker

    assert maoctl("tool", "update", "crawler", "--image", "lab/crawler:2").code == 0
    changed = gateway.kept[TOOLS]["crawler"]
    assert (changed["image"], changed["description"]) == ("lab/crawler:2", "theirs")


def test_remove_is_guarded_by_the_revision_read(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool())

    assert maoctl("tool", "remove", "crawler", "--yes").err == "tool/crawler removed\n"
    assert gateway.kept[TOOLS] == {}
    assert gateway.called("DELETE", f"{TOOLS}/crawler")[0].headers["if-match"] == '"1"'


UNREADABLE = {
    "name": "newer",
    "key": "/mao/registry/tools/newer",
    "unreadable": "image: Field required",
    "next": "maoctl tool remove newer",
}


def test_list_reports_unreadable_records(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", TOOLS, {"items": [documents.tool()], "cursor": None, "unreadable": [UNREADABLE]})

    shown = maoctl("tool", "get", "-o", "json")

    assert [tool["name"] for tool in json.loads(shown.out)] == ["crawler"]
    assert shown.err == "newer cannot be read: image: Field required\nnext: maoctl tool remove newer\n"


@pytest.mark.parametrize(
    ("path", "words"), [("/webhooks", ("webhook", "get")), ("/trusted", ("node", "trusted"))]
)
def test_unpaged_list_reports_unreadable_records(
    maoctl: Maoctl, gateway: RememberingGateway, path: str, words: tuple[str, ...]
) -> None:
    gateway.answer("GET", path, {"items": [], "cursor": None, "unreadable": [UNREADABLE]})
    assert "newer cannot be read: image: Field required" in maoctl(*words).err


def test_list_reads_records_of_a_newer_version(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool() | {"of_a_newer_version": {"a": None}})

    assert maoctl("tool", "get").code == 0
    assert json.loads(maoctl("tool", "get", "crawler", "-o", "json").out)["of_a_newer_version"] == {"a": None}
    assert maoctl("tool", "update", "crawler", "--image", "lab/crawler:2").code == 0
    sent = gateway.called("PUT", f"{TOOLS}/crawler")[0].body
    assert "of_a_newer_version" not in sent  # the registry has it, and keeps it


def test_remove_of_an_unreadable_record(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep(TOOLS, documents.tool())
    gateway.problem("GET", f"{TOOLS}/crawler", 409, "record-unreadable")

    assert maoctl("tool", "remove", "crawler").code != 0  # nobody is there to answer
    assert TOOLS in gateway.kept
    assert "crawler" in gateway.kept[TOOLS]
    assert maoctl("tool", "remove", "crawler", "--yes").err == "crawler removed\n"
    assert gateway.kept[TOOLS] == {}


def test_dataset_init_registers_the_repository_that_the_node_made(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.answer("POST", "/bare-repo/init", {"name": "data", "master": "/srv/git/data.git"}, 201)

    assert maoctl("dataset", "init", "data").code == 0
    assert gateway.kept["/registry/datasets"]["data"]["master"] == "/srv/git/data.git"
    # The node's folder cannot be opened from here, as under compose: the node hands the repository out.
    assert maoctl("dataset", "clone-url", "data").out.endswith("/git/data.git\n")
    assert maoctl("dataset", "clone-url", "data").out.startswith("http://")


@pytest.mark.parametrize("master", ["/srv/git/data.git", "git@git.example.org:mao/data.git"])
def test_dataset_init_of_a_taken_name_makes_no_repository(
    maoctl: Maoctl, gateway: RememberingGateway, master: str
) -> None:
    gateway.keep("/registry/datasets", {**documents.dataset(), "master": master})
    refused = maoctl("dataset", "init", "data")
    assert refused.code == 5
    assert "The dataset 'data' already exists" in refused.err
    assert not gateway.called("POST", "/bare-repo/init")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_dataset_clone_url_of_a_readable_folder(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path, form: str
) -> None:
    gateway.keep("/registry/datasets", {**documents.dataset(), "master": form.format(tmp_path)})
    assert maoctl("dataset", "clone-url", "data").out == f"{form.format(tmp_path)}\n"


@pytest.mark.parametrize("master", ["git@git.example.org:mao/data.git", "https://git.example.org/data"])
def test_dataset_clone_url_of_a_remote(maoctl: Maoctl, gateway: RememberingGateway, master: str) -> None:
    gateway.keep("/registry/datasets", {**documents.dataset(), "master": master})
    assert maoctl("dataset", "clone-url", "data").out == f"{master}\n"


def test_dataset_show_without_a_clone_here(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())

    shown = json.loads(maoctl("dataset", "show", "data", "-o", "json").out)

    assert shown["status"] is None
    assert "no clone on this node" in maoctl("dataset", "show", "data").out


def test_dataset_show_lists_branches(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/registry/datasets", documents.dataset())
    branch = {
        "name": "node-1",
        "commit": "ab" * 20,
        "time": "2026-01-31T11:00:00Z",
        "subject": "s",
        "here": True,
        "unpushed": 2,
    }
    outbox = {"state": "waiting", "waiting": 2, "since": "2026-01-31T11:00:00Z"}
    status = documents.dataset_status(branches=[branch], outbox=outbox, size=2048)
    gateway.answer("GET", "/datasets/data", status)

    out = maoctl("dataset", "show", "data").out.splitlines()

    assert ["unpushed", "2"] in [line.split() for line in out]
    assert ["size", "2Ki"] in [line.split() for line in out]
    assert out[-1].split() == ["node-1", "ababababab", "60m", "2", "s"]


def test_pipeline_init_and_create(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/pipeline/init", documents.pipeline(), 201)

    assert maoctl("pipeline", "init", "crawler", "data").code == 0
    steps = ("--step", "crawler:raw", "--step", "summary:tables:raw")
    assert maoctl("pipeline", "create", "daily", *steps, "--agree", "host network").code == 0

    seed, created = (call.body for call in gateway.called("POST", "/pipeline/init"))
    assert seed == {"tool": "crawler", "dataset": "data"}
    assert created["agree"] == ["host network"]
    assert [(s["tool"], s["dataset"], s.get("input_dataset")) for s in created["steps"]] == [
        ("crawler", "raw", None),
        ("summary", "tables", "raw"),
    ]


def test_tool_check_of_a_non_compliant_image_exits_with_1(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    finding = {"name": "exit-code", "ok": False, "detail": "It ended with 3.", "advice": "End with 0."}
    report = {"image": "lab/x:1", "compliant": False, "findings": [finding], "log": "no luck\x1b[2J\n"}
    gateway.answer("POST", "/tools/check", report)

    result = maoctl("tool", "check", "lab/x:1", "--time", "30s")

    assert result.code == 1
    assert result.out.splitlines()[1] == "exit-code  failed  It ended with 3.  End with 0."
    assert "no luck\\x1b[2J" in result.err
    assert gateway.calls[0].body == {"image": "lab/x:1", "timeout": 30.0}


def test_tool_check_sends_its_options(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    finding = {
        "name": "tried-elsewhere",
        "ok": True,
        "detail": "It could not write /x.",
        "advice": "Write /tmp.",
    }
    report = {"image": "lab/x:1", "compliant": True, "findings": [finding], "log": ""}
    gateway.answer("POST", "/tools/check", report)

    options = ["--user", "1000", "--network", "none", "-e", "A=1", "--cap-add", "NET_RAW", "--once"]
    result = maoctl("tool", "check", "lab/x:1", *options)

    assert result.code == 0
    assert result.out.splitlines()[1] == "tried-elsewhere  hint   It could not write /x.  Write /tmp."
    assert gateway.calls[0].body == {
        "image": "lab/x:1",
        "env": {"A": "1"},
        "network": "none",
        "privileges": {"user": "1000", "capabilities": ["NET_RAW"]},
        "once": True,
    }


def test_tool_check_of_a_missing_image(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    finding = {"name": "image", "ok": False, "detail": "There is no image.", "advice": "docker pull lab/x:1"}
    report = {"image": "lab/x:1", "compliant": False, "findings": [finding], "log": ""}
    gateway.answer("POST", "/tools/check", report)

    result = maoctl("tool", "check", "lab/x:1")

    assert result.code == 1
    assert result.err == "error: lab/x:1 cannot be run.\nnext: docker pull lab/x:1\n"


def test_tool_update_names_pipelines_that_pin_the_old_tool(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.keep("/registry/tools", documents.tool("crawler"))
    gateway.keep("/registry/pipelines", documents.pipeline("daily"))

    result = maoctl("tool", "update", "crawler", "--image", "lab/crawler:9")

    assert result.code == 0
    assert result.err.endswith("next: maoctl pipeline approve daily\n")


def test_job_backfill_says_how_to_continue(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    path = "/jobs/daily-3f2a1c/backfill"
    more = "2026-01-31T06:00:00Z"
    gateway.answer("POST", path, {"queued": ["r1", "r2"], "present": 1, "more_since": more})

    result = maoctl("job", "backfill", "daily-3f2a1c", "--since", "12h")

    assert result.out == "run/r1\nrun/r2\n"
    assert f"next: maoctl job backfill daily-3f2a1c --since {more}\n" in result.err
    assert [call.body for call in gateway.called("POST", path)] == [
        {"since": "2026-01-31T00:00:00Z", "until": "2026-01-31T12:00:00Z"}
    ]


def test_job_backfill_dry_run_lists_ticks(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    path = "/jobs/daily-3f2a1c/backfill"
    tick = {"run": "r1", "scheduled_for": "2026-01-31T02:00:00Z", "missed": "late", "reason": "too late"}
    gateway.answer("POST", path, {"queued": [], "present": 1, "ticks": [tick]})

    result = maoctl("job", "backfill", "daily-3f2a1c", "--since", "12h", "--dry-run")

    assert result.out == "run/r1\n"
    assert "1 would be queued (dry run), 1 already run or running" in result.err
    assert gateway.called("POST", path)[0].body["dry_run"] is True


def test_job_preview_shows_times(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/cron/preview", {"times": ["2026-01-31T12:15:00Z", "2026-02-02T12:15:00Z"]})

    out = maoctl("job", "preview", "15 12 * * *", "--timezone", "Europe/Zurich", "-n", "2").out

    assert out == "2026-01-31T13:15:00+01:00 Sat  in 15m\n2026-02-02T13:15:00+01:00 Mon  in 2d\n"
    assert maoctl("job", "preview", "15 12 * * *").out.startswith("2026-01-31T12:15:00Z Sat  in 15m\n")
    assert maoctl("job", "preview", "@daily", "--timezone", "Not/Known").out.startswith(
        "2026-01-31T12:15:00Z "
    )
    across = {"times": ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z"]}
    gateway.answers["POST", "/cron/preview"] = [(200, across)]
    zoned = maoctl("job", "preview", "@daily", "--timezone", "Europe/Zurich").out
    assert [line.split()[0] for line in zoned.splitlines()] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:30:00+02:00",
    ]
    assert gateway.calls[0].body["timezone"] == "Europe/Zurich"


def test_apply_creates_then_finds_all_unchanged_then_updates(
    maoctl: Maoctl, gateway: RememberingGateway, federation_file: Path
) -> None:
    apply = ("apply", "-f", str(federation_file))
    names = ("tool/crawler", "dataset/data", "pipeline/daily")

    dry = maoctl(*apply, "--dry-run").out
    assert dry == "".join(f"{name} created (dry run)\n" for name in names)
    assert not any(gateway.kept.values())
    assert maoctl(*apply).out == "".join(f"{name} created\n" for name in names)
    assert maoctl(*apply).out == "".join(f"{name} unchanged\n" for name in names)

    federation_file.write_text(federation_file.read_text("utf-8").replace("1.4", "1.5"), "utf-8")
    assert maoctl(*apply, "-o", "name").out == "".join(f"{name}\n" for name in names)
    assert gateway.kept[TOOLS]["crawler"]["image"] == "lab/crawler:1.5"
    assert gateway.called("PUT", f"{TOOLS}/crawler")[0].headers["if-match"] == '"1"'


def test_apply_does_not_overwrite_a_concurrent_change(
    maoctl: Maoctl, gateway: RememberingGateway, federation_file: Path
) -> None:
    gateway.keep(TOOLS, documents.tool(image="lab/crawler:0"))

    def somebody_is_quicker(call: Call) -> None:
        gateway.revision += call.method == "PUT"

    gateway.before = somebody_is_quicker

    assert maoctl("apply", "-f", str(federation_file)).code == 5
    assert gateway.kept[TOOLS]["crawler"]["image"] == "lab/crawler:0"


def test_apply_reads_json_from_stdin(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"items": [{"kind": "Dataset", "name": "data", "master": "/srv/data.git"}]})
    monkeypatch.setattr("sys.stdin", io.StringIO(text))

    result = maoctl("apply", "-f", "-", "-o", "json")

    assert json.loads(result.out) == [{"kind": "dataset", "name": "data", "result": "created"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: moon\nname: x\n", "Invalid kind 'moon'; use one of tool, dataset, pipeline"),
        ("name: x\n", "Invalid kind None"),
        ("just words", "is not a record"),
        ("a: [1\n", "cannot be read as YAML or JSON: line 6, column 1"),
        ("{kind: tool, name: x}", "image: is missing"),
        ("- &a {kind: dataset, name: x, master: /x}\n- *a\n", "dataset/x appears twice"),
    ],
)
def test_apply_writes_nothing_of_a_file_with_an_error(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "records.yaml"
    file.write_text("kind: dataset\nname: first\nmaster: /first\n---\n" + text, "utf-8")

    result = maoctl("apply", "-f", str(file))

    assert result.code == 2
    assert said in result.err
    assert gateway.calls == []


def test_pipeline_run_with_a_tick(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/pipeline/run", documents.run(phase="queued"), 201)

    assert maoctl("pipeline", "run", "daily", "--scheduled-for", "2026-01-01T00:00:00+01:00").code == 0
    told = datetime.fromisoformat(gateway.calls[0].body["scheduled_for"])
    assert told == datetime(2025, 12, 31, 23, 0, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["tool", "dataset", "pipeline"])
def test_get_yaml_can_be_applied(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    record = {"tool": documents.tool, "dataset": documents.dataset, "pipeline": documents.pipeline}[kind]()
    gateway.keep(f"/registry/{kind}s", record)
    gateway.keep("/datasets")
    state = {"enrolled": True, "outdated": False, "pending": [], "enrolment": None}
    gateway.answer("GET", "/pipeline", {"items": [{**record, **state}], "cursor": None})
    for command in ("show", "get"):
        shown = maoctl(kind, command, record["name"], "-o", "yaml")
        assert shown.out.startswith(f"kind: {kind}\n"), shown.err
        monkeypatch.setattr("sys.stdin", io.StringIO(shown.out))
        applied = maoctl("apply", "-f", "-")
        assert (applied.code, applied.out) == (0, f"{kind}/{record['name']} unchanged\n"), applied.err


def test_tool_update_removes_variables_and_capabilities(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    privileges = {"capabilities": ["NET_RAW", "SYS_TIME", "CHOWN"]}
    gateway.keep(TOOLS, documents.tool(env={"A": "1", "B": "2"}, privileges=privileges))
    assert maoctl("tool", "update", "crawler", "-e", "A-", "-e", "C=3-").code == 0
    assert gateway.kept[TOOLS]["crawler"]["env"] == {"B": "2", "C": "3-"}
    assert maoctl("tool", "update", "crawler", "--cap-drop", "cap_net_raw").code == 0
    assert gateway.kept[TOOLS]["crawler"]["privileges"]["capabilities"] == ["SYS_TIME", "CHOWN"]
    assert maoctl("tool", "update", "crawler", "--cap-add", "").code == 0
    assert gateway.kept[TOOLS]["crawler"]["privileges"]["capabilities"] == []


def test_apply_says_where_yaml_is_invalid(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path
) -> None:
    file = tmp_path / "f.yaml"
    for text, why in (
        ("kind: tool\nname: [\n", "line 3, column 1: "),
        ("kind: tool\nname: a\nname: b\n", "line 3, column 1: the key 'name' appears twice."),
    ):
        file.write_text(text)
        result = maoctl("apply", "-f", str(file))
        assert result.code == 2
        assert f"cannot be read as YAML or JSON: {why}" in result.err
        assert len(result.err.splitlines()) == 2
    assert not gateway.calls


def test_pipeline_create_warns_of_a_step_that_reads_its_output(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    gateway.answer("POST", "/pipeline/init", documents.pipeline())
    looped = maoctl("pipeline", "create", "daily", "--step", "crawler:data:data")
    assert "warning: crawler reads the dataset data that it writes" in looped.err
    assert "warning" not in maoctl("pipeline", "create", "daily", "--step", "crawler:data:raw").err


def test_tool_check_of_a_registered_tool(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    tool = documents.tool("crawler") | {"env": {"A": "1", "B": "1"}, "network": "none"}
    gateway.keep("/registry/tools", tool | {"privileges": {"user": "1000", "docker_socket": True}})
    gateway.answer("POST", "/tools/check", {"image": "x", "compliant": True, "findings": [], "log": "done\n"})

    result = maoctl("tool", "check", "crawler", "-e", "B=2")

    assert result.code == 0, result.err
    assert "Output of the tool:\ndone" in result.err
    sent = next(call.body for call in gateway.calls if call.path == "/tools/check")
    assert sent == {
        "image": tool["image"],
        "env": {"A": "1", "B": "2"},
        "network": "none",
        "privileges": {"user": "1000"},
    }


def test_job_show_prints_the_next_times(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/jobs", documents.job(), key="id")
    gateway.answer("GET", "/jobs/daily-3f2a1c/next", {"times": ["2026-02-01T02:30:00Z"]})

    shown = maoctl("job", "show", "daily-3f2a1c")
    document = json.loads(maoctl("job", "show", "daily-3f2a1c", "-o", "json").out)

    assert "2026-02-01T02:30:00Z Sun  in 14h" in shown.out
    assert document == {"kind": "job"} | documents.job() | {"next_times": ["2026-02-01T02:30:00Z"]}
    assert maoctl("job", "show", "daily-3f2a1c", "-o", "name").out == "job/daily-3f2a1c\n"
