"""Log lines in text and JSON format."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from mao_shared.logs import Outage, bind, configure_logs, configure_plain, get_logger, render_text


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    configure_plain()


def text(**event: object) -> str:
    line = render_text(None, "", {"timestamp": "2026-01-31T12:00:00Z", "service": "runner", **event})
    return line.partition(" ")[2]  # the time is in the machine's zone


def test_logs_line_for_a_person() -> None:
    assert (
        text(event="run.started", level="info", run="r-1", step=0) == "runner     run.started run=r-1 step=0"
    )
    assert text(event="run.lost", level="warning") == "runner     WARN run.lost"


def test_logs_value_cannot_forge_a_line() -> None:
    line = text(event="x", name="a b\n12:00:00 runner run.ok", other="\x1b[31m")
    assert "\n" not in line
    assert "\x1b" not in line
    assert line.startswith('runner     x name="a b\\n12:00:00')


def test_logs_json_lines_with_bound_facts_and_masked_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("registry", "info", "json")
    with bind(request_id="r-1"):
        get_logger("mao_test_json").info("x", token="t0ps3cret", url="https://me:pw@host/x")
    line = json.loads(capsys.readouterr().err)
    assert (line["service"], line["request_id"], line["event"], line["level"]) == (
        "registry",
        "r-1",
        "x",
        "info",
    )
    assert line["token"] == "•••"
    assert line["url"] == "https://•••@host/x"


@pytest.mark.parametrize(
    ("url", "logged"),
    [
        ("https://ghp_token@host/x", "https://•••@host/x"),
        ("cannot reach ssh://git:pw@host/x", "cannot reach ssh://•••@host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)
def test_logs_what_stands_before_a_host_is_masked(
    url: str, logged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("registry", "info", "json")
    get_logger("mao_test_urls").info("x", url=url)
    assert json.loads(capsys.readouterr().err)["url"] == logged


def test_logs_other_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("registry", "info", "text")
    logging.getLogger("some.library").warning("took %d s", 3)
    logging.getLogger("httpx").info("HTTP Request: GET …")
    assert capsys.readouterr().err.partition(" ")[2] == "registry   WARN took 3 s\n"


def test_logs_traceback_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("registry", "info", "text")
    try:
        raise ValueError("why")
    except ValueError:
        get_logger("mao_test_trace").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("registry   ERROR failed")
    assert lines[-1] == "ValueError: why"


def test_logs_outage_is_told_at_its_beginning_and_every_minute() -> None:
    now = 0.0
    outage = Outage(lambda: now)
    told = []
    for now in (0.0, 0.5, 30.0, 60.0, 60.5):
        if outage.is_news():
            told.append(now)
    assert told == [0.0, 60.0]
    outage.over()
    assert outage.is_news()
