"""Mark tests by the external programs they need, derived from what they call.

A test that calls one of `STARTERS`, directly or in a fixture, gets the marks listed there; a test in one of
`FOLDERS` gets the folder's mark. All others are marked `fast` (`make test-fast`) and must not run any of
`PROGRAMS`. Explicit marks are only needed where a helper starts the program.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import CodeType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

STARTERS = {
    "Engine": {"docker"},
    "EtcdServer": {"etcd"},
    "running_etcd": {"etcd"},
    "federation_etcd": {"etcd"},
    "ssh_server": {"sshd"},
    "datalad": {"evidence"},
    "rocrate_issues": {"evidence"},
    "runcrate_report": {"evidence"},
    "chromium": {"browser"},
    "Reader": {"browser"},
    "promtool": {"promtool"},
    "native_node": {"docker", "etcd"},
    "NativeNode": {"docker", "etcd"},
}
FOLDERS = {"tests/e2e/": "e2e", "tests/faults/": "e2e", "tests/federation/": "e2e", "tests/pages/": "e2e"}
PROGRAMS = (
    "etcd",
    "etcdctl",
    "sshd",
    "git-lfs",
    "docker",
    "chromium",
    "datalad",
    "rocrate-validator",
    "runcrate",
    "promtool",
)
NEEDS = ("docker", "etcd", "sshd", "lfs", "browser", "evidence", "promtool", "compose", "e2e")


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis limit no time, since the machine may be busy.

    In fast runs, use fewer examples, unless a test sets its number, and one polars thread: tables are small,
    so that more threads only take time from each other and from other workers.
    """
    settings.register_profile("all", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("fast", settings.get_profile("all"), max_examples=20)
    settings.load_profile("fast" if config.option.markexpr == "fast" else "all")
    if config.option.markexpr == "fast":
        os.environ.setdefault("POLARS_MAX_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in marks_of(item):
            item.add_marker(mark)
        if not any(map(item.get_closest_marker, NEEDS)):
            item.add_marker("fast")


def marks_of(item: pytest.Item) -> set[str]:
    """Return the marks that follow from a test's folder and from what it and its fixtures call."""
    found = {mark for folder, mark in FOLDERS.items() if item.nodeid.startswith(folder)}
    for code in _codes(item):
        found.update(*(STARTERS[name] for name in code.co_names if name in STARTERS))
    return found


def _codes(item: pytest.Item) -> Iterator[CodeType]:
    if isinstance(item, pytest.Function):
        yield item.function.__code__
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            yield from (
                definition.func.__code__ for definition in definitions if hasattr(definition.func, "__code__")
            )


_running: pytest.Item | None = None
_unsaid: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    global _running
    _running = item if item.get_closest_marker("fast") else None
    _unsaid.clear()
    yield
    _running = None
    if _unsaid:
        pytest.fail(
            f"runs {', '.join(sorted(_unsaid))} without a mark that says so: see {__name__}", pytrace=False
        )


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _running is None or event != "subprocess.Popen":
        return
    _, words, _, env = args
    program, *rest = map(os.fsdecode, words if isinstance(words, (list, tuple)) else [words])
    found = shutil.which(program, path=(env or os.environ).get("PATH"))
    if found is None or "pytest-" in found:  # not installed, or a fake program made by the test
        return
    name = "git-lfs" if PurePath(found).name == "git" and "lfs" in rest else PurePath(found).name
    if name in PROGRAMS:
        _unsaid.add(name)


sys.addaudithook(_hear)
