"""Waiting and following: events, broken connections, time limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from maoctl.follow import MAX_FAILURES

from . import documents
from .conftest import Maoctl, Terminal
from .documents import ago
from .gateways import Call, RememberingGateway, Stream, sse

RUN = "20260131T115900Z-daily-0a1b2c3d"
EVENTS = f"/runs/{RUN}/events"
LOGS = f"/runs/{RUN}/logs"


def running(**fields: object) -> documents.Json:
    return documents.run(RUN, "running", **fields)


def test_run_wait_follows_events_to_the_end(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("POST", "/pipeline/run", documents.run(RUN, "queued"), 201)
    changes = [documents.run(RUN, "queued"), running(), documents.run(RUN)]
    gateway.stream(EVENTS, Stream([sse(change) for change in changes], "hang"))

    result = maoctl("pipeline", "run", "daily", "--wait")

    assert result.code == 0
    assert result.err.splitlines() == [
        f"run/{RUN} started",
        f"run {RUN}: queued",
        f"run {RUN}: running, step crawler: running",
        f"run {RUN}: succeeded",
    ]
    assert "c0ffeec0ff" in result.out
    assert len(gateway.called("GET", EVENTS)) == 1


@pytest.mark.parametrize("ending", ["close", "break"])
def test_run_wait_resumes_a_broken_stream(maoctl: Maoctl, gateway: RememberingGateway, ending: str) -> None:
    gateway.keep("/runs", running(), key="id")
    gateway.stream(EVENTS, Stream([sse(running(), "7")], ending), Stream([sse(documents.run(RUN), "9")]))

    result = maoctl("run", "wait", RUN)

    assert result.code == 0
    first, second = gateway.called("GET", EVENTS)
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "7"
    assert len(maoctl.pauses) == 1


def test_run_wait_backs_off_and_gives_up(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", running(), key="id")
    gateway.stream(EVENTS, Stream([], "break"))

    result = maoctl("run", "wait", RUN)

    assert result.code == 6
    assert len(maoctl.pauses) == MAX_FAILURES
    assert maoctl.pauses == sorted(maoctl.pauses)


@pytest.mark.parametrize("phase", ["failed", "lost", "cancelled"])
def test_run_wait_exits_with_7_and_the_reason(
    maoctl: Maoctl, gateway: RememberingGateway, phase: str
) -> None:
    error = {"code": "x", "detail": "It did not work.", "next": "Look here.", "fault": "tool"}
    ended = documents.run(RUN, phase, error=error)
    gateway.keep("/runs", ended, key="id")
    gateway.stream(EVENTS, Stream([sse(ended)]))

    result = maoctl("run", "wait", "0a1b2c3d", "-o", "json")

    assert result.code == 7
    assert "It did not work.\nnext: Look here.\n" in result.err


def test_run_wait_exits_with_8_on_timeout(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", running(), key="id")
    gateway.stream(EVENTS, Stream([sse(running())], "hang"))

    result = maoctl("run", "wait", RUN, "--timeout", "0.2")

    assert result.code == 8
    assert f"maoctl run wait {RUN}" in result.err
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 60, "the test runner's own alarm is set again"


def heed_ctrl_c() -> None:
    """Restore the handling of Ctrl-C, which shells disable for background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_run_wait_exits_with_130_on_ctrl_c(gateway: RememberingGateway, url: str) -> None:
    gateway.keep("/runs", running(), key="id")
    gateway.stream(EVENTS, Stream([sse(running())], "hang"))
    command = [sys.executable, "-m", "maoctl", "run", "wait", RUN]
    with subprocess.Popen(
        command,
        env={**os.environ, "MAO_URL": url},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        finally:
            process.kill()

    assert "step crawler: running" in first
    assert process.returncode == 130
    assert f"the run {RUN} continues" in rest
    assert f"maoctl run cancel {RUN}" in rest
    assert gateway.called("POST", f"/runs/{RUN}/cancel") == []


def test_run_logs_follow_through_a_broken_connection(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    first, second = documents.step("crawler", "running"), documents.step("summary", "pending")
    done = documents.step("crawler"), documents.step("summary")
    gateway.keep("/runs", running(steps=[first, second]), key="id")
    gateway.answer("GET", f"/runs/{RUN}", running(steps=[first, second]))
    gateway.stream(
        EVENTS,
        Stream([sse(running(steps=[first, second]))], "hang"),
        Stream([sse(documents.run(RUN, steps=list(done)))]),
    )
    gateway.stream(
        LOGS,
        Stream([sse("one\n", "4")], "break"),
        Stream([sse("two\n", "8"), sse({}, event="end")], "hang"),
        Stream([sse("three\n", "6"), sse({}, event="end")]),
    )

    result = maoctl("run", "logs", RUN, "-f")

    assert (result.code, result.out) == (0, "one\ntwo\nthree\n")
    assert [call.headers.get("last-event-id") for call in gateway.called("GET", LOGS)] == [None, "4", None]
    assert [call.query["step"] for call in gateway.called("GET", LOGS)] == ["0", "0", "1"]
    assert "==> step summary, attempt 1 <==" in result.err


def test_run_logs_follow_reopens_a_stream_of_a_live_step(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.answer("GET", f"/runs/{RUN}", running())
    gateway.answer("GET", f"/runs/{RUN}", running())
    gateway.answer("GET", f"/runs/{RUN}", documents.run(RUN))
    gateway.stream(EVENTS, Stream([sse(running())], "hang"), Stream([sse(documents.run(RUN))]))
    gateway.stream(LOGS, Stream([sse("one\n", "4")]), Stream([sse("two\n", "8")]))

    result = maoctl("run", "logs", RUN, "-f")

    assert (result.code, result.out) == (0, "one\ntwo\n")


def test_pipeline_run_follow_exits_with_7_for_a_failed_run(
    maoctl: Maoctl, gateway: RememberingGateway
) -> None:
    ended = documents.run(RUN, "failed")
    gateway.answer("POST", "/pipeline/run", documents.run(RUN, "queued"), 201)
    gateway.stream(EVENTS, Stream([sse(ended)]))
    gateway.stream(LOGS, Stream([sse("no luck\n"), sse({}, event="end")]))

    result = maoctl("pipeline", "run", "daily", "--follow")

    assert (result.code, result.out) == (7, "no luck\n")


def test_run_logs_of_an_attempt(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    step = documents.step("crawler") | {"attempt": 3}
    gateway.keep("/runs", documents.run(RUN, steps=[step]), key="id")
    gateway.answer("GET", LOGS, "second try\n")

    result = maoctl("run", "logs", "2026", "--step", "crawler", "--attempt", "2")

    assert (result.code, result.out) == (0, "second try\n")
    assert gateway.called("GET", LOGS)[0].query == {"step": "0", "attempt": "2"}


def test_run_logs_of_an_unknown_step(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", documents.run(RUN), key="id")

    result = maoctl("run", "logs", RUN, "--step", "nope")

    assert result.code == 3
    assert "Its steps: crawler" in result.err


def test_run_logs_escape_control_characters(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal
) -> None:
    gateway.keep("/runs", documents.run(RUN), key="id")
    gateway.answer("GET", LOGS, "50%\r\x1b]52;c;ZXZpbA==\x07done\n")

    maoctl("run", "logs", RUN)

    assert terminal.shown == "50%\\r\\x1b]52;c;ZXZpbA==\\x07done\n"


def ended(number: int, phase: str = "succeeded") -> documents.Json:
    run_id = f"20260131T1150{number:02d}Z-daily-0000000{number}"
    return documents.run(run_id, phase, schedule="daily-3f2a1c", trigger="schedule")


def test_job_wait_counts_all_ended_runs(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/jobs", documents.job(), key="id")
    gateway.keep("/runs", ended(1), documents.run(RUN), key="id")

    def another_ends(call: Call) -> None:
        if call.path == "/events":
            gateway.keep("/runs", ended(2), key="id")

    gateway.before = another_ends
    news = [sse({"revision": 5}, "5", "begin"), sse(ended(2), "6", "run"), sse(ended(3), "7", "run")]
    gateway.stream("/events", Stream(news, "hang"))

    result = maoctl("job", "wait", "daily-3f2a1c", "--runs", "3", "--timeout", "60s", "-o", "name")

    assert result.code == 0
    assert result.out.split() == [f"run/{ended(number)['id']}" for number in (1, 2, 3)]


def test_job_wait_lists_runs_after_lost_events(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/jobs", documents.job(), key="id")
    gateway.keep("/runs", key="id")
    gateway.stream("/events", Stream([sse({"next": "list"}, "9", "gone")], "hang"))
    seen = 0

    def ends_unnoticed(call: Call) -> None:
        nonlocal seen
        seen += call.path == "/runs"
        if seen == 3:
            gateway.keep("/runs", ended(1), key="id")

    gateway.before = ends_unnoticed

    assert maoctl("job", "wait", "daily-3f2a1c").code == 0


@pytest.mark.parametrize(("phase", "code"), [("failed", 7), ("lost", 7), ("missed", 0), ("succeeded", 0)])
def test_job_wait_exits_with_7_for_a_failed_run(
    maoctl: Maoctl, gateway: RememberingGateway, phase: str, code: int
) -> None:
    gateway.keep("/jobs", documents.job(), key="id")
    gateway.keep("/runs", ended(1, phase), key="id")
    gateway.stream("/events", Stream([], "hang"))

    assert maoctl("job", "wait", "daily-3f2a1c").code == code


def test_shortened_run_id_must_be_unique(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", ended(1), ended(2), documents.run(RUN, created_at=ago(1)), key="id")

    assert maoctl("run", "show", "00000001", "-o", "name").out == f"run/{ended(1)['id']}\n"
    assert maoctl("run", "show", "20260131T1159", "-o", "name").out == f"run/{RUN}\n"
    several, none = maoctl("run", "show", "20260131"), maoctl("run", "show", "cafe")
    assert (several.code, none.code) == (2, 3)
    assert RUN in several.err


def test_run_show_without_an_id_is_of_the_newest_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", key="id")
    assert maoctl("run", "show").err.startswith("error: There is no run yet.")
    gateway.keep("/runs", ended(2, "missed"), ended(1), documents.run(RUN, created_at=ago(1)), key="id")

    assert maoctl("run", "show", "-o", "name").out == f"run/{ended(1)['id']}\n"


@pytest.mark.parametrize("typed", [RUN, f"run/{RUN}", "run/" + RUN[:20]])
def test_run_id_with_its_kind(maoctl: Maoctl, gateway: RememberingGateway, typed: str) -> None:
    gateway.keep("/runs", running(), key="id")
    gateway.answer("GET", f"/runs/{RUN}", running())

    result = maoctl("run", "show", typed, "-o", "name")

    assert (result.code, result.out) == (0, f"run/{RUN}\n")


def test_run_cancel_of_an_ended_run(maoctl: Maoctl, gateway: RememberingGateway) -> None:
    gateway.keep("/runs", documents.run(RUN), key="id")

    result = maoctl("run", "cancel", RUN)

    assert result.code == 5
    assert f"The run {RUN} has already ended: succeeded." in result.err
    assert gateway.called("POST", f"/runs/{RUN}/cancel") == []
