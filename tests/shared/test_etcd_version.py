"""Classification of etcd versions by whether they enforce permissions."""

import subprocess
import sys
from pathlib import Path

import pytest

from mao_shared import etcd_version
from mao_shared.etcd_version import is_preferable, judge, parse, read_output, worst

UNSAFE = """2.3.8 3.3.27 3.4.0 3.4.23 3.4.41 3.4.42-rc.0 3.5.0 3.5.16+dfsg 3.5.16 3.5.27 3.5.28-rc.1
    3.6.0-alpha.0 3.6.0 3.6.8 3.7.0-rc.1 3.7.0-alpha.0 4.0.0-beta.1"""
WARNED = (
    "3.4.42 3.4.45 3.4.99 3.5.28 3.5.28+dfsg 3.5.29 3.5.30-rc.1 3.5.30 3.5.32 3.5.33-rc.0 3.6.9 3.6.13 3.7.0"
)
GOOD = "3.5.33 v3.5.33 3.5.34+git 3.5.100 3.6.14 3.6.16 3.7.1 3.7.2-rc.0 3.8.0 3.10.0 4.0.0 10.0.0"
NO_VERSION = [
    "",
    " ",
    "3",
    "3.5",
    "3.5.x",
    "3.5.33.1",
    "-3.5.33",
    "3.5.33 extra",
    "3.5.٣٣",
    "latest",
    "3.5.33~rc1",
    "Not provided",
    None,
]


@pytest.mark.parametrize("version", UNSAFE.split())
def test_judge_unsafe(version: str) -> None:
    assert judge(version) == "unsafe"


@pytest.mark.parametrize("version", WARNED.split())
def test_judge_warned(version: str) -> None:
    assert judge(version) == "warned"


@pytest.mark.parametrize("version", GOOD.split())
def test_judge_good(version: str) -> None:
    assert judge(version) == "good"


@pytest.mark.parametrize("version", NO_VERSION)
def test_judge_what_is_no_version(version: str | None) -> None:
    assert parse(version) is None
    assert judge(version) == "unsafe"


def test_version_parse_orders_numbers_and_candidates() -> None:
    ordered = ["3.4.9", "3.4.23", "3.5.0-alpha.0", "3.5.0-rc.2", "3.5.0-rc.10", "3.5.0", "3.5.2", "3.10.0"]
    assert sorted(sorted(ordered), key=lambda text: parse(text) or ()) == ordered
    assert parse("3.5.16+dfsg") == parse("3.5.16")


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], None),
        (["3.6.14"], "3.6.14"),
        (["3.5.30", "3.4.23", "3.6.14"], "3.4.23"),
        (["3.6.8", "3.4.42", "3.5.33"], "3.6.8"),
        (["3.5.33", "3.6.13"], "3.6.13"),
        (["3.4.23", "nonsense"], "nonsense"),
    ],
)
def test_version_worst_of_a_mixed_cluster(versions: list[str], expected: str | None) -> None:
    assert worst(versions) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("etcd Version: 3.5.30\nGit SHA: Not provided (use ./build instead of go build)\n", "3.5.30"),
        ("etcd Version: 3.6.0-alpha.0\n", "3.6.0-alpha.0"),
        ("etcdctl version: 3.4.23\nAPI version: 3.4\n", ""),
        ("", ""),
        ("error: no such flag\n3.5.33\n", ""),
    ],
)
def test_version_read_output_of_the_program(output: str, expected: str) -> None:
    assert read_output(output) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [("3.4.42", False), ("3.5.29", False), ("3.5.30", True), ("3.6.9", True), ("3.6.8", False), ("x", False)],
)
def test_version_is_preferable_to_the_one_on_offer(there: str, expected: bool) -> None:
    assert is_preferable(there, "3.5.30") is expected


@pytest.mark.parametrize(
    ("words", "code"),
    [(["3.4.23"], 1), (["3.5.28"], 0), (["3.5.28", "3.5.30"], 1), (["3.5.33", "3.5.30"], 0)],
)
def test_version_main_answers_scripts_without_the_projects_packages(words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(Path(etcd_version.__file__)), *words], check=False)
    assert done.returncode == code
