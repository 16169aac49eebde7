"""What the pages of runs say, without a browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages import marks, site
from mao_gateway.pages.formats import Clock
from mao_gateway.pages.runs import view
from mao_gateway.pages.runs.listing import RunsFilter, read_time
from mao_gateway.pages.runs.log import LogPart, LogQuery, line_text, log_options
from mao_gateway.pages.runs.outputs import describe_difference, evidence_facts, listed_files, written_files
from mao_gateway.pages.runs.run import find_brief, verification_message
from mao_gateway.pages.runs.timeline import make_timeline
from mao_shared.errors import InvalidInput
from mao_shared.models import DatasetRef, Failure, ResolvedImage, ResolvedStep, Retry, Run, StepRun
from mao_shared.models.dataset import DatasetDiff, FileDifference, LinesDifference, RowsDifference
from mao_shared.models.federation import NodeRuns, RunBrief
from mao_shared.models.log import LogLine, LogLines
from mao_shared.models.run import CancelRequest, Exit, Mismatch, Original, PastAttempt, Verification
from mao_shared.states import RunPhase, StepPhase

NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
ZURICH = Clock(NOW, ZoneInfo("Europe/Zurich"))
HOSTILE = "<b>\x1b[2J\u202e&\"'"


def step(name: str = "crawler", phase: StepPhase = StepPhase.RUNNING, **changes: Any) -> StepRun:
    spec = ResolvedStep(
        name=name,
        tool="t",
        image=ResolvedImage(name="i", pinned="sha256:0", platform="linux/amd64"),
        output=DatasetRef(name="d", master="/d", branch="n"),
        **changes.pop("spec", {}),
    )
    return StepRun(spec=spec, phase=phase, **changes)


def run(*steps: StepRun, phase: RunPhase = RunPhase.RUNNING, **changes: Any) -> Run:
    fields: dict[str, Any] = {"trigger": "manual", "created_at": NOW, "started_at": NOW} | changes
    return Run(
        id="20260329T120000Z-p-0123abcd", pipeline="p", node="n", phase=phase, steps=list(steps), **fields
    )


def times(**seconds: float) -> dict[StepPhase, datetime]:
    return {StepPhase(phase): NOW + timedelta(seconds=after) for phase, after in seconds.items()}


def test_marks_have_their_icons() -> None:
    sprite = site.environment().get_template("icons.svg").render()
    known = set(re.findall(r'id="i-([^"]+)"', sprite))
    assert {shape for shape, _ in marks.STATES.values()} <= known


@pytest.mark.parametrize(
    ("text", "end_of_day", "expected"),
    [
        ("", False, None),
        ("2026-01-31", False, datetime(2026, 1, 30, 23, tzinfo=UTC)),
        ("2026-01-31", True, datetime(2026, 1, 31, 22, 59, 59, tzinfo=UTC)),
        ("2026-03-29", True, datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC)),  # a day of 23 hours
        ("2026-01-31 14:30", True, datetime(2026, 1, 31, 13, 30, tzinfo=UTC)),
        ("2026-01-31T14:30:00Z", False, datetime(2026, 1, 31, 14, 30, tzinfo=UTC)),
        (" 24h ", False, NOW - timedelta(days=1)),
        ("7d", False, NOW - timedelta(days=7)),
        ("90m", False, NOW - timedelta(minutes=90)),
    ],
)
def test_read_time(text: str, end_of_day: bool, expected: datetime | None) -> None:
    assert read_time(text, ZURICH, end_of_day=end_of_day) == expected


@pytest.mark.parametrize(
    "text", ["soon", "2026-13-01", "0001-01-01", "9999-12-31", "5w", "-3d", HOSTILE, "1" * 200]
)
def test_read_time_refuses(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time"):
        read_time(text, ZURICH)


def test_filter_gives_the_command() -> None:
    wanted = RunsFilter(pipeline="My Pipeline", phase="failed", since="7d")
    assert wanted.options(ZURICH) == " --pipeline 'My Pipeline' --phase failed --since 7d"
    assert RunsFilter(since="soon").options(ZURICH) == ""


def test_timeline_draws_attempts_and_phases() -> None:
    past = PastAttempt(attempt=1, times=times(preparing=0, ready=2, starting=9, running=10, failed=31))
    now_running = step(
        attempt=2, times=times(pending=31, preparing=91, starting=92, running=93), earlier=[past]
    )
    found = make_timeline(
        run(now_running, step("after", StepPhase.PENDING)), NOW + timedelta(seconds=100), ZURICH.zone
    )
    assert [(bar.step, bar.attempt, str(bar.phase), bar.seconds) for bar in found.bars] == [
        ("crawler", 1, "failed", 31.0),
        ("crawler", 2, "running", 69.0),
        ("after", 1, "pending", None),
    ]
    assert [(each.word, each.seconds, each.is_open) for each in found.bars[1].spans] == [
        ("back-off", 60.0, False),
        ("preparing", 1.0, False),
        ("starting", 1.0, False),
        ("running", 7.0, True),
    ]
    assert found.axis == ["14:00:00", "14:00:30", "14:01:00", "14:01:30", "14:02:00"]
    for bar in found.bars:
        assert ElementTree.fromstring(bar.svg).get("role") == "img"
    assert "g-bad" in found.bars[0].svg
    assert "g-open" in found.bars[1].svg
    assert "not begun" in found.bars[2].svg


@pytest.mark.parametrize("seconds", [0, 0.01, 3, 59, 3600, 86_400, 40 * 86_400, -5])
def test_timeline_stays_in_its_box(seconds: float) -> None:
    ended = step(phase=StepPhase.SUCCEEDED, times=times(preparing=0, running=seconds, succeeded=seconds))
    [bar] = make_timeline(run(ended), NOW, ZURICH.zone).bars
    for box in ElementTree.fromstring(bar.svg).iter("rect"):
        x, width = float(box.attrib["x"]), float(box.attrib["width"])
        assert x >= 0
        assert x + width <= 1000.1


@pytest.mark.parametrize(
    ("found", "title", "said"),
    [
        (run(phase=RunPhase.QUEUED, reason="waits for run x"), "It waits", "waits for run x"),
        (run(step(waiting="no free slot"), reason=None), "Step crawler waits: it is running", "no free slot"),
        (run(step(), cancel=CancelRequest(requested_at=NOW, reason="no")), "It is being cancelled", "no"),
        (run(phase=RunPhase.MISSED, reason="too late"), "The tick was missed", "too late"),
        (run(phase=RunPhase.LOST), "The run lost", "Its record has no error."),
        (
            run(
                step(
                    phase=StepPhase.PENDING,
                    attempt=2,
                    not_before=NOW + timedelta(seconds=30),
                    waiting="broke",
                )
            ),
            "Step crawler is tried again in 30 s: attempt 2 of 1",
            "broke",
        ),
    ],
)
def test_run_notes(found: Run, title: str, said: str) -> None:
    [note] = view.run_notes(found, ZURICH)
    assert (note.title, note.text) == (title, said)


def test_run_notes_begin_with_the_error() -> None:
    error = Failure(code="tool-failed", detail="It exited.\nlast\nwords", next="See its log", fault="tool")
    failed = run(step(phase=StepPhase.FAILED, error=error), phase=RunPhase.FAILED, error=error)
    note = view.run_notes(failed, ZURICH)[0]
    assert (note.title, note.lines, note.next) == (
        "Step crawler failed",
        ["It exited.", "last", "words"],
        "See its log",
    )
    assert note.code == "tool-failed, caused by the tool"


def test_run_actions_say_why_not() -> None:
    going, done = (
        run(step(times=times(running=0))),
        step(phase=StepPhase.SUCCEEDED, snapshot="a", base_commit="b"),
    )
    ended = run(done.model_copy(update={"times": times(running=0)}), phase=RunPhase.SUCCEEDED)
    reproduction = ended.model_copy(update={"reproduces": Original(run="r", step="s", snapshot="a")})
    possible = {
        name: [key for key, each in view.run_actions(found).items() if not each.why_not]
        for name, found in {"going": going, "ended": ended, "copy": reproduction}.items()
    }
    assert possible == {
        "going": ["cancel"],
        "ended": ["retry", "reproduce", "verify", "export"],
        "copy": ["verify", "export"],
    }
    missed = view.run_actions(run(phase=RunPhase.MISSED))
    assert [missed["retry"].why_not, missed["export"].why_not] == ["", "no step was started"]


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (StepPhase.RUNNING, "SIGTERM, after 10 s with SIGKILL"),
        (StepPhase.PUBLISHING, "is publishing, which is not interrupted"),
        (StepPhase.PREPARING, "does not start"),
    ],
)
def test_cancel_consequence(phase: StepPhase, said: str) -> None:
    assert said in view.cancel_consequence(run(step(phase=phase)))


@pytest.mark.parametrize(
    ("line", "wanted", "html"),
    [
        (LogLine(number=1, text=HOSTILE), "", "&lt;b&gt;\\x1b[2J\\u202e&amp;&#34;&#39;"),
        (LogLine(number=1, text="a\tb\rc"), "", "a\tb\\rc"),
        (LogLine(number=1, text="a <B> b"), "<b>", "a <mark>&lt;B&gt;</mark> b"),
        (LogLine(number=1, text="50%", before=100), "", "50%"),
    ],
)
def test_line_text_is_harmless(line: LogLine, wanted: str, html: str) -> None:
    assert str(line_text(line, wanted)).endswith(html)


def test_log_part_follows_from_the_open_line() -> None:
    options = log_options([step(attempt=2), step("after", StepPhase.SKIPPED)])
    assert options == [("crawler:1", "crawler, attempt 1"), ("crawler", "crawler, attempt 2")]
    lines = LogLines(step="crawler", index=0, attempt=2, total=7, size=90, follow_from=80, grows=True)
    part = LogPart(LogQuery(), options, lines)
    assert (part.follows, part.next_number, part.chosen) == (True, 7, "crawler")
    assert LogPart(LogQuery(), options, lines.model_copy(update={"follow_from": 90})).next_number == 8
    assert (
        LogPart(LogQuery(step="crawler:1"), options, lines.model_copy(update={"attempt": 1})).chosen
        == "crawler:1"
    )
    for query in (LogQuery(text="x"), LogQuery(first=3), LogQuery(follow=False)):
        assert not LogPart(query, options, lines).follows


@pytest.mark.parametrize(
    ("text", "attempt"), [("a", None), ("a:2", 2), ("a:0", None), ("a:x", None), (":9999", None)]
)
def test_log_query_attempt(text: str, attempt: int | None) -> None:
    assert LogQuery(step=text).attempt == attempt


def test_written_files_of_a_record() -> None:
    record = {"outputs": {"a.csv": {"size": 3, "sha256": "0" * 64}, "same": {"size": 1, "sha256": "1" * 64}}}
    differing = [FileDifference(path="a.csv", change="changed"), FileDifference(path="old", change="removed")]
    files = written_files(listed_files(record), differing, record)
    assert [(file.path, file.size, file.change) for file in files] == [
        ("a.csv", 3, "changed"),
        ("old", None, "removed"),
        ("same", 1, "same"),
    ]


@pytest.mark.parametrize(
    "record", [None, {}, {"outputs": []}, {"outputs": {"a": 5}}, {"outputs": {"a": {"size": []}}}]
)
def test_written_files_of_a_forged_record(record: dict[str, Any] | None) -> None:
    assert listed_files(record) == {}


def test_describe_difference_counts() -> None:
    rows = RowsDifference(
        key=["id"],
        key_source="inferred",
        columns_added=["x"],
        columns_removed=[],
        added=1,
        removed=2,
        changed=1,
        same=0,
        rows=[],
        truncated=False,
    )
    assert describe_difference(DatasetDiff(before="a", after="b", rows=rows)) == (
        "+1 \u22122 ~1",
        "1 record changed, 1 added, 2 removed; key id; column x added",
    )
    lines = LinesDifference(lines=["--- a", "+++ b", "@@ -1 +1 @@", "-x", "+y", "+z"], truncated=False)
    diff = DatasetDiff(before="a", after="b", lines=lines)
    assert describe_difference(diff) == ("+2 \u22121", "2 lines added, 1 removed")
    assert describe_difference(DatasetDiff(before="a", after="b", note="Binary")) == ("", "Binary")


def test_evidence_facts_mask_secrets() -> None:
    spec = {"env": {"TOKEN": "t0p"}, "command": ["crawl", "--password", "hunter2"], "retry": Retry()}
    found = step(spec=spec, exit=Exit(code=137, oom=True))
    told = str(evidence_facts(found, {"versions": {"git": HOSTILE}}))
    assert "t0p" not in told
    assert "hunter2" not in told
    assert "code 137, out of memory" in told


def test_verification_message_lists_some_faults() -> None:
    fault = Mismatch(step="s", what="output", path="a", detail="differs")
    bad = Verification(run="r", ok=False, files=2, bytes=2000, faults=[fault] * 7, unchecked=["log"])
    message = verification_message(bad)
    assert (message.good, message.text) == (False, "The run is not as recorded (2 files and 2 kB were read).")
    assert (message.next or "").endswith("; and 2 more")
    assert verification_message(bad.model_copy(update={"ok": True, "faults": []})).next == "Not checked: log."


def test_find_brief_of_another_node() -> None:
    brief = RunBrief(id="r", trigger="schedule", phase=RunPhase.FAILED)
    known = [NodeRuns(node=node, pipeline="p", present=True, runs=[brief]) for node in ("a", "b")]
    found = find_brief(known, "b", "r")
    assert found is not None
    assert found[0].node == "b"
    assert find_brief(known, "b", "other") is None


def test_usual_seconds_needs_some_runs() -> None:
    ended = [run(started_at=NOW, finished_at=NOW + timedelta(seconds=n)) for n in (1, 5, 9)]
    assert view.usual_seconds(ended) == 5
    assert view.usual_seconds(ended[:2]) is None
