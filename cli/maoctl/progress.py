"""Progress of long calls on stderr, on a terminal only; stdout is left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from mao_shared.clients.gateway_data import BinaryWriter


class Counted:
    """Writer that reports how many bytes pass through it."""

    def __init__(self, out: BinaryWriter, advance: Callable[[float], None]) -> None:
        self._out = out
        self._advance = advance

    def write(self, data: bytes, /) -> int:
        self._advance(len(data))
        return self._out.write(data)


@contextmanager
def transfer(label: str, out: BinaryWriter) -> Iterator[BinaryWriter]:
    """Show how much was written to `out`, and how fast, while the block runs; yields the writer to use."""
    if not is_shown():
        yield out
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bar(label, [DownloadColumn(binary_units=True), TransferSpeedColumn()]) as advance:
        yield Counted(out, advance)


@contextmanager
def working(label: str) -> Iterator[None]:
    """Show what takes long, and for how long it has, while the block runs."""
    if not is_shown():
        yield
        return
    with _bar(label, []):
        yield


def is_shown() -> bool:
    """True if stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _bar(label: str, columns: list[ProgressColumn]) -> Iterator[Callable[[float], None]]:
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
        task = bar.add_task(label, total=None)
        yield lambda count: bar.advance(task, count)
