"""What a test run by several workers (`-n`, pytest-xdist) needs so that Ctrl-C leaves nothing behind.

Ctrl-C is for the controller alone, which interrupts each worker once and waits until it has cleared away; by
itself it would give them ten seconds, and a second interrupt in the middle of that.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import pytest

CLEARING = 120.0  # seconds that a worker may take


class Controller:
    """Hands an interrupt on to the workers."""

    def __init__(self) -> None:
        self._workers: list[Any] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        self._workers.append(node)

    def pytest_keyboard_interrupt(self) -> None:
        working = [worker for worker in self._workers if not worker.channel.isclosed()]
        for worker in working:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.workerinfo["pid"], signal.SIGINT)
        for worker in working:
            with contextlib.suppress(OSError, EOFError, worker.channel.RemoteError):
                worker.channel.waitclose(CLEARING)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        os.setpgid(0, 0)  # out of the terminal's reach
    else:
        config.pluginmanager.register(Controller())
