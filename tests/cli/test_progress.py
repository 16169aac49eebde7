"""Progress of long calls: on stderr, on a terminal, and never in the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import example_node as node
from .conftest import Maoctl, Terminal
from .gateways import RememberingGateway

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
