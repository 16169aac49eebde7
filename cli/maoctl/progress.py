"""Progress of long calls on stderr, on a terminal only; stdout is left alone."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mao_shared.errors import MaoError
from mao_shared.request_context import numbered_request

from .text import harmless_line

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from mao_shared.clients.gateway_data import BinaryWriter

    from .session import CliSession, Config

ASK_SECONDS = 0.5  # between two questions how far a call is
ASK_TIMEOUT = 2.0  # seconds


class Transfer:
    """Writer that shows how many bytes have passed through it, of how many if that is known."""

    def __init__(self, out: BinaryWriter, bar: Progress | None = None, task: TaskID | None = None) -> None:
        self._out = out
        self._bar, self._task = bar, task

    def expect(self, total: int) -> None:
        """Show shares of this many bytes."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)

    def write(self, data: bytes, /) -> int:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, len(data))
        return self._out.write(data)


@contextmanager
def transfer(label: str, out: BinaryWriter) -> Iterator[Transfer]:
    """Show how much was written to `out`, and how fast, while the block runs; yields the writer to use."""
    if not is_shown():
        yield Transfer(out)
        return
    from rich.progress import DownloadColumn, TaskProgressColumn, TransferSpeedColumn

    columns = [TaskProgressColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn()]
    with _bar(label, columns) as (bar, task):
        yield Transfer(out, bar, task)


@contextmanager
def working(label: str, session: CliSession | None = None) -> Iterator[None]:
    """Show what takes long, and for how long it has, while the block runs.

    With a session, the node is asked what the block's calls wait for: images that are pulled, datasets that
    are cloned, and how much of them has arrived.
    """
    if not is_shown():
        yield
        return
    if session is None:
        with _bar(label, []):
            yield
        return
    from rich.progress import TaskProgressColumn

    with _bar(label, [TaskProgressColumn()]) as (bar, task), numbered_request() as request_id:
        over = threading.Event()
        asking = threading.Thread(
            target=_follow, args=(session.config, request_id, over, label, bar, task), daemon=True
        )
        asking.start()
        try:
            yield
        finally:
            over.set()
            asking.join()


def _follow(
    config: Config, request_id: str, over: threading.Event, label: str, bar: Progress, task: TaskID
) -> None:
    """Show how far a request's work is, until it is over."""
    from .session import connect

    with connect(config, timeout=ASK_TIMEOUT, attempts=1) as client:
        while not over.wait(ASK_SECONDS):
            try:
                ongoing = client.progress(request_id)
            except MaoError:
                return  # of an older version, or busy: it works without
            work = next((work for work in ongoing if work.total), ongoing[0] if ongoing else None)
            if work is not None:
                about = f"{label}: {harmless_line(work.subject)}"
                bar.update(task, description=about, completed=work.done, total=work.total or None)


def is_shown() -> bool:
    """True if stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _bar(label: str, columns: list[ProgressColumn]) -> Iterator[tuple[Progress, TaskID]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,  # nothing of it stays
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        yield bar, bar.add_task(label, total=None)
