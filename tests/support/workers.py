"""Parallel test runs (`-n`, pytest-xdist): start long modules first, and clean up after Ctrl-C.

Only the controller gets Ctrl-C; it interrupts each worker once and waits for its clean-up. By default xdist
would allow ten seconds and interrupt the workers a second time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CLEARING = 120.0  # seconds that a worker may take to clean up
# Modules that run on one worker, since they share the node of tests/e2e/conftest.py; each worker would start
# its own.
TOGETHER = tuple(
    f"tests/e2e/test_{name}.py"
    for name in (
        "api_examples",
        "audit",
        "bad_input",
        "evidence",
        "git_http",
        "main_job",
        "metrics",
        "values",
    )
)
PAGES = "tests/pages/"  # on one worker as well: they share a node, and several browsers at once are slow
# These start first, in this order, so that modules that mostly wait run beside those that compute.
LONG = (
    "tests/federation/test_absent",
    PAGES,
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
    """Forward an interrupt to the workers."""

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
        os.setpgid(0, 0)  # detach from the terminal's signals
    else:
        config.pluginmanager.register(Controller())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    return next((turn for turn, folder in enumerate(LONG) if item.nodeid.startswith(folder)), len(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    config.option.loadscopereorder = False  # keep our order instead of sorting by size
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _one_workers
    return scheduling


def _one_workers(nodeid: str) -> str:
    """Return the scope that runs on one worker: `TOGETHER`, the folder of the pages, or the test's module."""
    module = nodeid.partition("::")[0]
    if module.startswith(PAGES):
        return PAGES
    return TOGETHER[0] if module in TOGETHER else module
