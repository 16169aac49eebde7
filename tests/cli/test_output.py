"""Output formats: golden tables and documents; control characters are escaped."""

from __future__ import annotations

import json

import pytest
import yaml

from maoctl.text import TerminalText, harmless, harmless_line

from . import documents
from .conftest import Maoctl, Terminal
from .documents import ago
from .gateways import RememberingGateway

RUN_TABLE = """\
ID                               PHASE      STEPS  TRIGGER   AGE    DURATION  REASON
20260131T115900Z-daily-0a1b2c3d  succeeded  1/1    manual    60s    50s
20260131T023000Z-daily-9f8e7d6c  missed     0/0    schedule  9h30m            late by 5 min
"""
COMMITS = """\
COMMIT      AGE  AUTHOR  SUBJECT                         RUN
c0ffeec0ff  90s  Node 1  [DATALAD RUNCMD] daily/crawler  20260131T115900Z-daily-0a1b2c3d
"""
RUN_SHOWN = """\
run       20260131T115900Z-daily-0a1b2c3d
pipeline  daily
node      node-1
phase     failed
trigger   manual
created   2026-01-31T11:59:00Z
duration  50s
error     The tool ended with exit code 3.
fault     tool
next      maoctl run logs 0a1b2c3d

STEP     TOOL     DATASET  PHASE   ATTEMPT  DURATION  EXIT  SNAPSHOT  NOTE
crawler  crawler  data     failed  2        40s       3               The tool ended with exit code 3.
"""


def missed() -> documents.Json:
    tick = "2026-01-31T02:30:00Z"
    return documents.run(
        "20260131T023000Z-daily-9f8e7d6c",
        "missed",
        trigger="schedule",
        scheduled_for=tick,
        created_at=tick,
        started_at=None,
        steps=[],
        reason="late by 5 min",
    )


def test_run_list_as_a_table(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", documents.run(), missed(), key="id")

    result = maoctl("run", "list")

    assert result.code == 0
    assert result.out == RUN_TABLE


def test_run_show_of_a_failed_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    detail = "The tool ended with exit code 3."
    error = {"code": "tool-failed", "detail": detail, "next": "maoctl run logs 0a1b2c3d", "fault": "tool"}
    times = {"preparing": ago(50), "running": ago(40), "failed": ago(10)}
    step = documents.step(phase="failed") | {
        "attempt": 2,
        "exit": {"code": 3},
        "error": error,
        "times": times,
    }
    gateway.keep("/runs", documents.run(phase="failed", steps=[step], error=error), key="id")

    result = maoctl("run", "show", "0a1b2c3d")

    assert result.out == RUN_SHOWN


def test_table_outside_a_terminal_is_not_cut_or_coloured(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    image = "registry.example.org/" + "a" * 400 + ":1"
    gateway.keep("/registry/tools", documents.tool(image=image))

    out = maoctl("tool", "get", "-o", "wide").out

    assert image in out
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_option_before_and_after_the_command(
    maoctl: Maoctl, gateway: RememberingGateway, place: str
) -> None:
    gateway.keep("/registry/tools", documents.tool("crawler"), documents.tool("summary"))
    options = ("-o", "json")
    args = (*options, "tool", "get") if place == "before" else ("tool", "get", *options)

    crawler, summary = ({"kind": "tool", **documents.tool(name)} for name in ("crawler", "summary"))
    assert json.loads(maoctl(*args).out) == [crawler, summary]
    assert json.loads(maoctl("tools", "list", "crawler", *options).out) == crawler


def test_yaml_and_name_output(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/jobs", documents.job(), key="id")

    shown = yaml.safe_load(maoctl("job", "get", "-o", "yaml").out)

    assert shown[0]["cron"] == "30 2 * * *"
    assert maoctl("job", "get", "-o", "name").out == "job/daily-3f2a1c\n"


def test_output_of_an_empty_list(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/federation/nodes")

    table, document = maoctl("node", "list"), maoctl("node", "list", "-o", "json")

    assert (table.code, table.out, table.err) == (0, "", "No node found.\n")
    assert json.loads(document.out) == []


def test_data_on_stdout_and_messages_on_stderr(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/pipeline/run", documents.job(), 201)

    for_scripts = maoctl("-o", "name", "pipeline", "run", "daily", "--cron", "30 2 * * *", "--seconds")
    for_people = maoctl("pipeline", "run", "daily", "--cron", "30 2 * * *")

    assert for_scripts.out == "job/daily-3f2a1c\n"
    assert (for_people.out, for_people.err) == ("", "job/daily-3f2a1c scheduled\n")
    assert gateway.calls[0].body == {"name": "daily", "cron": "30 2 * * *", "seconds": True}


HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202eb\r\nnext"


def test_harmless_escapes_control_characters() -> None:
    assert harmless(HOSTILE) == "a\\x1b]0;owned\\x07\\x9b2J\\u202eb\nnext"
    assert harmless_line(HOSTILE) == "a\\x1b]0;owned\\x07\\x9b2J\\u202eb\\r\\nnext"


def test_terminal_text_escapes_across_chunks() -> None:
    data = "grüße\r\n10%\r20%\x1b[2Jé".encode()
    whole = "grüße\n10%\\r20%\\x1b[2Jé"
    for size in range(1, len(data)):
        text = TerminalText()
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert "".join(map(text.feed, chunks)) + text.feed(b"", final=True) == whole


@pytest.mark.parametrize("how", ["table", "wide", "json", "yaml", "name"])
def test_record_output_escapes_control_characters(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal, how: str
) -> None:
    gateway.keep("/federation/nodes", documents.node() | {"version": HOSTILE, "labels": {"x": HOSTILE}})

    maoctl("node", "list", "-o", how)

    assert terminal.shown
    assert not set(terminal.shown) & set("\x1b\x07\x9b\u202e\r")


def test_error_output_escapes_control_characters(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.problem("GET", "/registry/tools/x", 500, "internal", detail=HOSTILE, next=HOSTILE)

    assert not set(maoctl("tool", "get", "x").err) & set("\x1b\x07\x9b\u202e\r")


def test_cat_escapes_control_characters_on_a_terminal(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal
) -> None:
    gateway.answer("GET", "/datasets/data/file", HOSTILE)

    maoctl("dataset", "cat", "data", "results.csv")
    assert terminal.shown == harmless(HOSTILE)

    maoctl("dataset", "cat", "data", "results.csv", "--raw")
    assert terminal.shown.endswith(HOSTILE)
    assert gateway.calls[0].query == {"ref": "ground-truth", "path": "results.csv"}


def test_ids_cut_by_a_table_are_accepted(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    run_id = f"20260131T115900Z-{'p' * 63}-0a1b2c3d"
    gateway.keep("/runs", documents.run(run_id), documents.run(), key="id")

    maoctl("run", "list")

    shown = terminal.shown.splitlines()[1].split()[0]
    assert shown != run_id
    assert shown.endswith("-0a1b2c3d")
    maoctl("run", "get", shown, "-o", "name")
    assert terminal.shown.splitlines()[-1] == f"run/{run_id}"


@pytest.mark.parametrize("noun", ["tool", "job", "alarm"])
def test_names_cut_by_a_table_are_accepted(
    maoctl: Maoctl,
    gateway: RememberingGateway,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    noun: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = f"air-quality-{'x' * 40}-2026"
    alarm = {"id": name, "kind": "spike", "node": "n", "raised_at": ago(9), "detail": "d"}
    gateway.keep("/registry/tools", documents.tool(name), documents.tool("other"))
    gateway.keep("/jobs", documents.job(name), documents.job(), key="id")
    gateway.keep("/alarms", alarm, alarm | {"id": "other"}, key="id")

    maoctl(noun, "list")

    shown = terminal.shown.splitlines()[1].split()[0]
    assert "…" in shown
    monkeypatch.setenv("COLUMNS", "200")
    maoctl(noun, "get", shown, "-o", "name")
    assert terminal.shown.splitlines()[-1].endswith(name)


def test_cat_outside_a_terminal_keeps_every_byte(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/datasets/data/file", "a\x1b\n\nb")

    assert maoctl("dataset", "cat", "data", "x").out == "a\x1b\n\nb"


def test_dataset_log_shows_the_run_of_a_commit(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    subject, run = "[DATALAD RUNCMD] daily/crawler", "20260131T115900Z-daily-0a1b2c3d"
    commit = {
        "commit": "c0ffee" * 6 + "abcd",
        "parents": [],
        "author": "Node 1",
        "email": "node-1@example.org",
        "time": ago(90),
        "subject": subject,
        "message": subject,
        "run": run,
    }
    gateway.answer("GET", "/datasets/data/log", {"items": [commit], "cursor": None})

    result = maoctl("dataset", "log", "data", "--branch", "node-1")

    assert result.out == COMMITS
    assert gateway.calls[0].query["branch"] == "node-1"


def test_run_list_shows_no_fault_for_a_succeeded_run_to_be_voted(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    waits = "ground-truth is for 3 nodes to agree on, it is not moved by one"
    good = documents.run(steps=[documents.step(waiting=waits)])
    gateway.keep("/runs", good, key="id")
    for args in (("run", "list"), ("run", "show", good["id"])):
        shown = maoctl(*args).out
        assert "not moved by one" not in shown
        assert "for 3 nodes to vote" in shown


NEWER = {"colour": "blue", "tags": ["a", None], "nothing": None}
"""Fields that a newer node may add to its records."""


@pytest.mark.parametrize(
    ("words", "path", "document", "nested"),
    [
        ("tool get crawler", "/registry/tools/crawler", documents.tool(), "privileges"),
        ("run show 0a1b2c3d", "/runs", documents.run(cancel={"requested_at": ago(9)}), "cancel"),
        ("job get daily-3f2a1c", "/jobs/daily-3f2a1c", documents.job(), ""),
        ("node get node-1", "/federation/nodes/node-1", documents.node(), ""),
        ("dataset push data", "/datasets/data/push", documents.dataset_status(), "outbox"),
    ],
)
def test_json_output_keeps_fields_of_a_newer_node(
    maoctl: Maoctl, gateway: RememberingGateway, words: str, path: str, document: documents.Json, nested: str
) -> None:
    sent = document | NEWER | ({nested: document[nested] | NEWER} if nested else {})
    if path == "/runs":
        gateway.keep(path, sent, key="id")
    else:
        gateway.answer("POST" if "push" in words else "GET", path, sent)

    shown = json.loads(maoctl(*words.split(), "-o", "json").out)
    kind = shown.pop("kind", None)
    assert shown == sent
    assert kind == ("dataset-status" if "push" in words else words.split()[0])


def test_json_output_adds_no_fields_to_those_of_an_older_node(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    sent = {"name": "crawler", "author": "A. Scientist", "image": "lab/crawler:1.4"}
    gateway.answer("GET", "/registry/tools/crawler", sent)

    assert json.loads(maoctl("tool", "get", "crawler", "-o", "json").out) == {"kind": "tool", **sent}


def test_list_item_that_is_no_record_is_reported(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", "/registry/tools", {"items": [{"name": "crawler"}], "cursor": None})

    result = maoctl("tool", "get")

    assert result.code == 1
    assert "Invalid response to GET" in result.err
    assert "Field required." in result.err


def test_words_of_a_newer_node_are_shown(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    finding = {"name": "new-rule", "ok": True, "detail": "It does."}
    report = {"image": "lab/x:1", "compliant": True, "findings": [finding]}
    gateway.answer("POST", "/tools/check", report)

    assert "new-rule" in maoctl("tool", "check", "lab/x:1").out
    shown = json.loads(maoctl("tool", "check", "lab/x:1", "-o", "json").out)
    assert shown == {"kind": "check-report", **report}
