"""The child process that checks: it is limited and killed, and what it has decided by then counts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.checks.runner import CheckTask, run_checks
from mao_git import Clone, Content
from mao_shared.models.check import Check
from tests.datamgmt.world import BEGIN, context_for
from tests.support.git import bare_repository

PRESENT = Check(name="first", file="s.json", on_failure="block")
EVIL = {"pattern": "^(a+)+$"}  # takes 2^n steps for n letters a and another one


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    context_for(tmp_path)
    with Clone.create(tmp_path / "clone.git", str(bare_repository(tmp_path / "remote.git"))):
        pass
    return Clone.open(tmp_path / "clone.git")


def task(clone: Clone, text: str, *checks: Check) -> CheckTask:
    tree = clone.write_tree(clone.tree(None), {"s.json": Content.of(text.encode())})
    base = clone.tree(None)
    return CheckTask(repository=clone.path, tree=tree, base=base, checks=list(checks), moment=BEGIN)


def schema(name: str, of: dict[str, Any]) -> Check:
    return Check(name=name, file="s.json", json_schema=of)


def test_run_checks_keeps_the_order_and_the_reactions(clone: Clone) -> None:
    checks = [PRESENT, schema("second", {"type": "string"}), Check(name="third", at_least=1)]
    results = run_checks(task(clone, '"x"', *checks))
    assert [(result.name, result.passed) for result in results] == [
        ("first", True),
        ("second", True),
        ("third", False),
    ]
    assert results[0].on_failure == "block"


def test_run_checks_kills_a_pattern_that_takes_for_ever(clone: Clone) -> None:
    evil = schema("evil", EVIL)
    results = run_checks(task(clone, f'"{"a" * 50}!"', PRESENT, evil, PRESENT), max_seconds=5)
    assert [result.passed for result in results] == [True, False, False]
    assert results[1].detail == "it cannot be checked: it took longer than 5 s"
    assert "'evil' before it could not be" in results[2].detail


def test_run_checks_reports_a_child_that_ends(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    results = run_checks(task(clone, "1", PRESENT, PRESENT))
    assert [result.passed for result in results] == [False, False]
    assert re.search("the process ended with code 1", results[0].detail)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 1)",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    ],
)
def test_confined_process_retrieves_and_starts_nothing(code: str) -> None:
    program = f"from mao_datamgmt.checks.runner import confine; confine(); {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "nothing is retrieved or started here" in done.stderr


def test_confined_process_has_bounded_memory() -> None:
    program = "from mao_datamgmt.checks.runner import confine; confine(); x = bytearray(2 << 30)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr
