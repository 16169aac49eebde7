"""Test runs by several workers (`-n`, pytest-xdist): long modules first, and nothing left behind by Ctrl-C.

Ctrl-C is for the controller alone, which interrupts each worker once and waits until it has cleared away; by
itself it would give them ten seconds, and a second interrupt in the middle of that.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CLEARING = 120.0  # seconds that a worker may take
TOGETHER = ("tests/e2e/",)  # a whole folder for one worker: it has a node that all its modules share
# These go first, in this order: what waits (labs of several nodes, nodes in trouble) beside what computes.
LONG = (
    "tests/federation/test_absent",
    "tests/e2e/",
    "tests/faults/test_data_conditions",
    "tests/federation/test_outages",
    "tests/faults/test_conditions",
    "tests/federation/test_rounds",
    "tests/faults/",
    "tests/federation/",
    "tests/registry/federation/",
    "tests/contract/",
    "tests/datamgmt/",
    "tests/git/",
)


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
                os.kill(worker.gateway._rinfo().pid, signal.SIGINT)
        for worker in working:
            with contextlib.suppress(OSError, EOFError, worker.channel.RemoteError):
                worker.channel.waitclose(CLEARING)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        os.setpgid(0, 0)  # out of the terminal's reach
    else:
        config.pluginmanager.register(Controller())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    return next((turn for turn, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    config.option.loadscopereorder = False  # they go in our order, not by their number
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _one_workers
    return scheduling


def _one_workers(nodeid: str) -> str:
    """What goes to the same worker: a module, since its tests share fixtures, or a folder of those above."""
    return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0])
