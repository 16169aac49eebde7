"""Fixtures: a double of the gateway, and maoctl run against it in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO

import pytest

from maoctl.main import run_command
from maoctl.session import CliSession

from .documents import NOW
from .gateways import RememberingGateway, Served


class StandingClock:
    """Clock that always returns NOW."""

    def now(self) -> datetime:
        return NOW


class Terminal(io.TextIOWrapper):
    """Double of stdout that is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Maoctl:
    """Runs command lines. `pauses`: the seconds that it would have waited before reconnecting."""

    url: str
    read: Callable[[], tuple[str, str]]
    environ: dict[str, str] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    stdout: TextIO | None = None

    def __call__(self, *args: str) -> Result:
        session = CliSession({"MAO_URL": self.url, **self.environ}, StandingClock(), self.pauses.append)
        with contextlib.redirect_stdout(self.stdout) if self.stdout else contextlib.nullcontext():
            code = run_command(args, session)
        out, err = self.read()
        return Result(code, out, err)


@pytest.fixture
def gateway() -> RememberingGateway:
    return RememberingGateway()


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """One server for all tests, since stopping one takes 0.1 s."""
    with Served(RememberingGateway()) as served:
        yield served


@pytest.fixture
def url(served: Served, gateway: RememberingGateway) -> str:
    """The URL of the test's gateway."""
    served.gateway = gateway
    return served.url


@pytest.fixture
def maoctl(url: str, capsys: pytest.CaptureFixture[str]) -> Maoctl:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return Maoctl(url, read)


@pytest.fixture
def terminal(maoctl: Maoctl, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Make maoctl's stdout a terminal of 80 columns without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with Terminal() as terminal:
        maoctl.stdout = terminal
        yield terminal


@pytest.fixture
def federation_file(tmp_path: Path) -> Path:
    """A file of three records, with the pipeline before its tool and dataset."""
    path = tmp_path / "federation.yaml"
    path.write_text(
        "kind: Pipeline\nname: daily\nsteps: [{tool: crawler, dataset: data}]\n---\n"
        "- {kind: tool, name: crawler, author: A. Scientist, image: 'lab/crawler:1.4'}\n"
        "- {kind: dataset, name: data, master: /srv/git/data.git}\n",
        encoding="utf-8",
    )
    return path
