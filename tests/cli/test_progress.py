"""Progress of long calls: on stderr, on a terminal, and never in the data."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from maoctl.progress import working
from maoctl.session import CliSession

from . import example_node as node
from .conftest import Maoctl, Terminal
from .gateways import Call, RememberingGateway

LONG = [
    ("dataset download {dataset} --out {folder}/x.zip", "Downloading {dataset}"),
    ("run export {run} --out {folder}/x.zip", "Exporting {run}"),
    ("run verify {run}", "Comparing every byte"),
    ("pipeline enrol {pipeline}", "Pulling the images"),
    ("tool check {image}", "Checking {image}"),
    ("vote audit {dataset}", "Recomputing the round"),
]
NAMES = {"dataset": node.DATASET, "run": node.RUN, "pipeline": node.PIPELINE, "image": node.IMAGE}


@pytest.mark.parametrize(("words", "label"), LONG)
def test_progress_on_a_terminal(
    maoctl: Maoctl,
    gateway: RememberingGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    label: str,
) -> None:
    node.answer_all(gateway)
    line = words.format(folder=tmp_path, **NAMES).split()
    plain = maoctl(*line)
    assert label.format(**NAMES) + " " not in plain.err  # not a terminal
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with Terminal() as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        shown = maoctl(*line)
        assert label.format(**NAMES) in terminal.shown
        monkeypatch.setenv("TERM", "dumb")
        before = len(terminal.shown)
        maoctl(*line)
        assert label.format(**NAMES) not in terminal.shown[before:]
    assert (shown.code, shown.out) == (plain.code, plain.out)


def test_progress_leaves_what_is_written_to_stdout(
    maoctl: Maoctl, gateway: RememberingGateway, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answer_all(gateway)
    with Terminal() as screen:
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        maoctl("dataset", "download", node.DATASET, "hourly.csv", "--out", "-")
        assert "Downloading" in screen.shown
    assert terminal.shown == "sensor,value\nzurich-7,21.5\n"


def test_download_of_a_file_shows_its_share(
    maoctl: Maoctl, gateway: RememberingGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says how long it is; archives are packed while they are sent, so theirs do not."""
    node.answer_all(gateway)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for words, share in (("hourly.csv", "100%"), ("", "")):
        with Terminal() as screen:
            monkeypatch.setattr("sys.stderr", screen)
            maoctl("dataset", "download", node.DATASET, *words.split(), "--out", str(tmp_path / "x.zip"))
            assert "Downloading" in screen.shown
            assert ("%" in screen.shown) is bool(share)
            assert share in screen.shown


@pytest.mark.parametrize("answer", ["work", "nothing", "older"])
def test_working_asks_the_node_how_far_it_is(
    maoctl: Maoctl, gateway: RememberingGateway, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("maoctl.progress.ASK_SECONDS", 0.01)
    monkeypatch.setattr("mao_shared.request_context.secrets.token_hex", lambda _: "request-7")
    work = {"what": "pull", "subject": "busybox:1.36\x1b[2J", "done": 21, "total": 50, "unit": "bytes"}
    if answer != "older":
        items = [work | {"done": 0, "total": 0, "subject": "first"}, work] if answer == "work" else []
        gateway.answer("GET", "/progress/request-7", {"items": items})
    asked = threading.Semaphore(0)

    def note(call: Call) -> None:
        if call.path == "/progress/request-7":
            asked.release()

    gateway.before = note
    session = CliSession({"MAO_URL": maoctl.url})
    with Terminal() as screen:
        monkeypatch.setattr("sys.stderr", screen)
        with working("Pulling the images", session):
            assert asked.acquire(timeout=30)
            if answer != "older":
                assert asked.acquire(timeout=30)  # the first answer has been shown
        assert "Pulling the images" in screen.shown
        assert ("busybox:1.36" in screen.shown) is (answer == "work")
        assert ("42%" in screen.shown) is (answer == "work")
        assert "\x1b[2J" not in screen.shown
