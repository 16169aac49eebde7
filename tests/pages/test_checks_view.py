"""What the pages say about data checks and commits, without a browser."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages import checks, today
from mao_gateway.pages.alarms import views as alarm_views
from mao_gateway.pages.datasets import commit, commit_view
from mao_gateway.pages.datasets.quarantine import decided_message
from mao_gateway.pages.formats import Clock
from mao_gateway.pages.runs import outputs, view
from mao_shared.commit_messages import embed_record
from mao_shared.models import Alarm, DatasetRef, Failure, ResolvedImage, ResolvedStep, Run, StepRun
from mao_shared.models.check import Check, CheckResult, QuarantinedSnapshot
from mao_shared.models.common import STORED
from mao_shared.models.dataset import CommitInfo, DatasetStatus, FileDifference, Outbox
from mao_shared.models.run import Original
from mao_shared.states import RunPhase, StepPhase

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CLOCK = Clock(NOW, ZoneInfo("UTC"))
COMMIT, OTHER = "a" * 40, "b" * 40


def check(name: str = "c", **fields: Any) -> Check:
    return Check.model_validate({"name": name, **fields}, context=STORED)


def result(name: str = "c", on_failure: str = "warn", *, passed: bool = False, **fields: Any) -> CheckResult:
    return CheckResult(name=name, kind="rows", on_failure=on_failure, passed=passed, **fields)


def step(*results: CheckResult, declared: tuple[Check, ...] = (), **changes: Any) -> StepRun:
    spec = ResolvedStep(
        name="crawl",
        tool="t",
        image=ResolvedImage(name="i", pinned="sha256:0", platform="linux/amd64"),
        output=DatasetRef(name="raw", master="/d", branch="n"),
        checks=list(declared),
    )
    return StepRun(**{"spec": spec, "phase": StepPhase.SUCCEEDED, "checks": list(results)} | changes)


def run(*steps: StepRun, **fields: Any) -> Run:
    given = {"trigger": "manual", "created_at": NOW, "phase": RunPhase.SUCCEEDED} | fields
    return Run(id="r-1", pipeline="p", node="n", steps=list(steps), **given)


def quarantine(state: str = "waiting", **fields: Any) -> dict[str, Any]:
    return {"commit": COMMIT, "branch": "quarantine/n", "state": state, **fields}


@pytest.mark.parametrize(
    ("fields", "on", "words"),
    [
        ({"file": "a/*.csv"}, "a/*.csv", "is there"),
        (
            {"file": "t.csv", "columns": {"id": "integer", "note": "text"}, "not_empty": ["id"]},
            "t.csv",
            "has the columns id (integer, never empty), note (text)",
        ),
        ({"at_least": 1}, "all tables", "at least 1 row"),
        ({"at_most": 0}, "all tables", "at most 0 rows"),
        ({"file": "t", "at_least": 10, "at_most": 5000}, "t", "10 to 5\u202f000 rows"),
        ({"at_least": 7, "at_most": 7}, "all tables", "7 rows"),
        (
            {"max_increase": "500", "max_decrease": "10%"},
            "all tables",
            "at most 10\u202f% fewer and 500 rows more than in the last snapshot",
        ),
        ({"max_increase": "1"}, "all tables", "at most 1 row more than in the last snapshot"),
        ({"metric": "images"}, "", "the control metric images is inside its band"),
        ({"file": "s.json", "json_schema": {}}, "s.json", "is valid against its JSON Schema"),
        ({"file": "s.json", "entropy": 3}, "s.json", "of a newer version: entropy"),
    ],
)
def test_check_is_told_in_words(fields: dict[str, Any], on: str, words: str) -> None:
    [row] = checks.declared_rows([check(**fields)])
    assert (row.on, row.what, row.outcome, row.reaction) == (on, words, "not checked", "warn")


def test_check_with_many_columns_names_the_first() -> None:
    of = check(file="t", columns={f"c{number}": "text" for number in range(25)})
    assert checks.describe_check(of).endswith("c19 (text) and 5 more")


def test_check_rows_begin_with_what_failed() -> None:
    declared = [check(name, file="f") for name in ("there", "warned", "blocked", "later")]
    found = [
        result("there", passed=True),
        result("warned", detail="x"),
        result("blocked", "block"),
        result("unknown", "explode"),
    ]
    rows = checks.check_rows(declared, found)
    assert [(row.name, row.outcome, row.icon) for row in rows] == [
        ("blocked", "failed", "failed"),
        ("unknown", "failed", "failed"),  # of a newer version: like `block`
        ("warned", "failed", "attention"),
        ("there", "passed", "ok"),
        ("later", "not checked", "waiting"),
    ]
    assert rows[1].what == "number of rows"  # of a result without a declaration, its kind
    assert rows[1].effect == checks.REACTIONS["block"]


@pytest.mark.parametrize(
    ("of", "summary", "why"),
    [
        (step(result(passed=True)), "all 1 passed", ""),
        (step(result()), "1 of 1 failed", "published all the same"),
        (step(result(on_failure="quarantine"), quarantine=quarantine()), "1 of 1 failed", "Accept it or"),
        (step(result(on_failure="quarantine"), quarantine=quarantine("accepted")), "1 of 1", "then accepted"),
        (step(result(on_failure="quarantine"), quarantine=quarantine("discarded")), "1 of", "then discarded"),
        (step(result(on_failure="block"), phase=StepPhase.FAILED), "1 of 1 failed", "kept in the workspace"),
        (step(declared=(check(file="f"),), phase=StepPhase.RUNNING), "not checked", "before it is published"),
        (step(declared=(check(file="f"),), phase=StepPhase.FAILED), "not checked", "failed before"),
        (step(declared=(check(file="f"),), phase=StepPhase.SKIPPED), "not checked", "skipped before"),
        (step(declared=(check(file="f"),)), "not checked", "nothing new to publish"),
    ],
)
def test_step_checks_say_what_came_of_them(of: StepRun, summary: str, why: str) -> None:
    [found] = checks.run_checks(run(of, step()))  # the other step has no checks
    assert summary in found.summary
    assert why in found.why
    assert (found.waiting is not None) == (of.quarantine is not None and of.quarantine.state == "waiting")


def test_checks_of_a_reproduction() -> None:
    original = Original(run="r-0", step="crawl", snapshot=COMMIT)
    [found] = checks.run_checks(run(step(declared=(check(file="f"),)), reproduces=original))
    assert found.why.startswith("A reproduction")


def test_run_notes_name_the_checks_that_failed() -> None:
    assert view.run_notes(run(step(result(passed=True))), CLOCK) == []
    [warned] = view.run_notes(run(step(result("few", detail="3 rows"))), CLOCK)
    assert (warned.tone, warned.title) == ("warn", "1 data check of step crawl failed")
    assert "few: 3 rows." in warned.text
    held = step(result("few", "quarantine"), quarantine=quarantine())
    [note] = view.run_notes(run(held), CLOCK)
    assert (note.icon, note.link) == ("quarantined", "Decide about it")
    decided = step(
        result("few", "quarantine"),
        quarantine=quarantine("discarded", decided_at=NOW, by="Ada", note="<b>odd</b>"),
    )
    [note] = view.run_notes(run(decided), CLOCK)
    assert note.title.endswith("was discarded")
    assert note.next == "discarded by Ada, Sat 31 Jan 2026, 12:00:00 UTC: <b>odd</b>"
    error = Failure(code="check-failed", detail="few: 0 rows", next="It is kept.", fault="tool")
    blocked = step(result("few", "block"), phase=StepPhase.FAILED, error=error)
    [note] = view.run_notes(run(blocked, phase=RunPhase.FAILED, error=error), CLOCK)
    assert (note.tone, note.title, note.link) == (
        "bad",
        "Step crawl failed a data check",
        "See what was checked",
    )


def test_output_of_a_quarantined_step_is_its_snapshot_there() -> None:
    assert outputs.output_commit(step()) is None
    assert outputs.output_commit(step(quarantine=quarantine())) == COMMIT
    assert outputs.output_commit(step(quarantine=quarantine("accepted"), snapshot=OTHER)) == OTHER


def snapshot(**fields: Any) -> QuarantinedSnapshot:
    given = {"dataset": "raw", "node": "n", "run": "r", "step": "s", "quarantined_at": NOW} | fields
    return QuarantinedSnapshot.model_validate({"commit": COMMIT, "branch": "quarantine/n", **given})


def test_decided_message_tells_what_was_published() -> None:
    done = decided_message(snapshot(state="accepted", accepted_as=OTHER, by="Ada", note="ok", pushed=True))
    assert done.text == f"Accepted: the snapshot {COMMIT[:10]} was published as {OTHER[:10]}."
    assert done.next == "By Ada: ok"
    done = decided_message(snapshot(state="discarded", note="odd"))
    assert done.text.endswith("is not published. This is not pushed yet.")
    assert done.next == "odd"


# what needs a person


def status(name: str, quarantined: int = 0) -> DatasetStatus:
    outbox = Outbox(state="in-sync")
    return DatasetStatus(
        name=name, master="", branches=[], unpushed=0, outbox=outbox, size=0, quarantined=quarantined
    )


def alarm(name: str, **fields: Any) -> Alarm:
    return Alarm.model_validate(
        {"id": name, "kind": "check", "node": "n", "raised_at": NOW, "detail": "d", **fields}
    )


def test_needs_list_quarantined_snapshots_whatever_became_of_their_alarms() -> None:
    needs = today.list_needs([alarm("1"), alarm("2", over=NOW)], {}, [status("a"), status("b", 2)])
    assert [(need.alarm and need.alarm.id, need.quarantined and need.quarantined.name) for need in needs] == [
        ("1", None),
        (None, "b"),
        ("2", None),
    ]
    assert today.list_needs([], {}, [status("a")]) == []


def test_alarm_of_a_check_leads_to_the_checks_of_its_run() -> None:
    row = alarm_views.open_row(alarm("1", run="r-1", dataset="raw", pipeline="p"), "n")
    assert [link.href for link in row.more] == ["/ui/runs/r-1#checks", "/ui/datasets/raw"]


# a commit


def info(record: Any = None, tail: str = "", **fields: Any) -> CommitInfo:
    message = "a message\n" if record is None else embed_record("[DATALAD RUNCMD] p: s on n", {"mao": record})
    given = {"commit": COMMIT, "parents": [OTHER], "author": "a", "email": "e", "time": NOW, "subject": "s"}
    return CommitInfo(message=message + tail, **(given | fields))


RECORD: dict[str, Any] = {
    "pipeline": "p",
    "trigger": "schedule",
    "tool": "t",
    "image": {"name": "lab/t:1", "pinned": "sha256:12", "platform": "linux/amd64"},
    "command": ["sh", "-c", "a\nb"],
    "env": {"B": "2", "A": "<b>"},
    "output": {"dataset": "raw", "branch": "n", "base": OTHER},
    "input": {"dataset": "src", "branch": "ground-truth", "commit": COMMIT},
    "manifest": {"files": 2, "bytes": 1500, "sha256": "ff"},
    "outputs": {"a.csv": {"size": 5, "sha256": "0" * 64}},
    "limits": {"time": 3600.0, "memory": 1 << 30, "pids": 512, "cpu": 1.5, "odd": "x"},
    "exit": {"code": 0},
    "versions": {"mao": "1", "engine": "docker"},
}


def test_provenance_of_a_step() -> None:
    found = commit_view.read_provenance("raw", info(RECORD))
    facts = dict(found.facts)
    assert (found.pipeline, found.trigger, found.decision) == ("p", "schedule", None)
    assert [(link.dataset, link.commit, link.note) for link in found.inputs] == [
        ("src", COMMIT, "ground-truth")
    ]
    assert found.base is not None
    assert found.base.commit == OTHER
    assert facts["Image"] == ["lab/t:1", "sha256:12", "linux/amd64"]
    assert facts["Command"] == ["sh -c a", "b"]
    assert facts["Environment"] == ["A=<b>", "B=2"]
    assert facts["Wrote"] == ["2 files, 1.5 kB"]
    assert facts["Exit"] == ["code 0"]
    assert facts["Limits"] == ["cpu 1.5, memory 1.1 GB, pids 512, time 1 h"]
    assert not {"Attempt", "Network", "Log", "Privileges"} & facts.keys()


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        [],
        "text",
        dict.fromkeys(RECORD, 7),
        {name: [] for name in RECORD},
        dict.fromkeys(RECORD, "x"),
        {name: {"commit": "../..", "base": "A" * 40, "code": True, "files": True} for name in RECORD},
        {"kind": "quarantine", "snapshot": "no commit"},
        {"quarantine": {"commit": 4}},
        {"checks": [{"name": 1}], "outputs": {"a": {"size": "x"}, "b": None}},
    ],
)
def test_provenance_of_what_others_wrote_has_what_is_of_the_form(record: Any) -> None:
    of = info(record)
    found = commit_view.read_provenance("raw", of)
    assert found.decision is None
    assert (found.base, list(found.inputs)) == (None, [])
    assert all(isinstance(line, str) for _, lines in found.facts for line in lines)
    assert all(file.size is None for file in commit_view.recorded_files(of, 10))
    assert commit_view.message_lines(of.message)


def test_decisions_are_read_from_commits() -> None:
    accepted = commit_view.read_provenance(
        "raw", info(RECORD | {"quarantine": {"commit": OTHER, "by": "Ada", "note": "ok"}})
    ).decision
    assert accepted == commit_view.Decision("accepted", OTHER, "Ada", "ok")
    decision = {"kind": "quarantine", "snapshot": OTHER, "state": "discarded", "note": "odd"}
    assert commit_view.read_provenance("raw", info(decision)).decision == commit_view.Decision(
        "discarded", OTHER, "", "odd"
    )


def test_changed_files_have_the_digests_of_the_record() -> None:
    differing = [
        FileDifference(path="a.csv", change="changed", size=5),
        FileDifference(path="b", change="removed"),
    ]
    found = commit_view.changed_files(differing, info(RECORD))
    assert [(file.path, file.size, file.sha256) for file in found] == [
        ("a.csv", 5, "0" * 64),
        ("b", None, None),
    ]
    [listed] = commit_view.recorded_files(info(RECORD), 10)
    assert (listed.path, listed.change, listed.size) == ("a.csv", "added", 5)


def test_message_is_shown_without_its_record() -> None:
    of = info(RECORD, "\nMAO-Run: r-1\nMAO-Step: s\n")
    assert commit_view.message_lines(of.message) == [
        "[DATALAD RUNCMD] p: s on n",
        "",
        "MAO-Run: r-1",
        "MAO-Step: s",
    ]
    assert json.loads("".join(commit_view.record_lines(of.message))) == RECORD
    assert commit_view.record_lines("no record") == []
    assert commit_view.message_lines("\x1b[2J\n" + "x\n" * 200)[0] == "\\x1b[2J"
    assert len(commit_view.message_lines("x\n" * 200)) == commit_view.MAX_MESSAGE_LINES


def test_round_of_a_commit_of_ground_truth() -> None:
    truth = info(tail="\nMAO-Round: 20260131T1200-1\nMAO-Tick: 2026-01-31T12:00:00Z\n")
    assert commit_view.round_of(truth) == "20260131T1200-1"
    assert commit_view.round_of(info(RECORD)) is None


@pytest.mark.parametrize(("line", "kind"), [("+a", "ins"), ("-a", "del"), (" a", ""), ("@@", ""), ("", "")])
def test_line_kind(line: str, kind: str) -> None:
    assert commit.line_kind(line) == kind
