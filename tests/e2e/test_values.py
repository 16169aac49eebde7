"""Values of external programs keep their spelling from maoctl through a node into git."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.git import bare_repository
from tests.support.node import NativeNode

pytestmark = [pytest.mark.etcd]

SENT = (
    "1.10",
    "1e500",
    "-1e-500",
    "-0.0",
    "12345678901234567890",
    '{"b": 1E5,"a":[ 0.1000 , "\\u00e4"]}',
    '"two\\nlines"',
)


def test_values_maoctl_write_keeps_their_spelling(node: NativeNode, tmp_path: Path) -> None:
    remote = bare_repository(tmp_path / "remote.git")
    node.maoctl("dataset", "add", "spelt", str(remote), "--external", "spelt-key")
    (tmp_path / "v.json").write_text(SENT[0] + "\n")
    node.maoctl("write", "spelt-key", "--file", str(tmp_path / "v.json"))
    piped = [sys.executable, "-m", "maoctl", "write", "spelt-key", "-"]
    subprocess.run(piped, env={**node.env, "MAO_URL": node.url}, input=SENT[1].encode(), check=True)
    for value in SENT[2:]:
        node.maoctl("write", "spelt-key", "--", value)

    assert taken_in(node) == sorted(SENT)


@pytest.mark.parametrize("value", ["NaN", '{"a": -Infinity}', '"\\ud800"', "9" * 5000])
def test_values_maoctl_write_refuses_what_json_cannot_hold(node: NativeNode, value: str) -> None:
    done = node.maoctl("write", "spelt-key", "--", value, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be sent as JSON" in done.stderr


def taken_in(node: NativeNode) -> list[str]:
    """Return the texts of all values, pending and committed."""
    root = node.data_dir
    lines = [path.read_text() for path in (root / "inbox" / "spelt").glob("*.json")]
    clone = root / "datasets" / "spelt.git"
    if clone.exists():
        found = subprocess.run(
            ["git", "-C", str(clone), "grep", "-h", "", node.name, "--", "external/spelt-key"],
            capture_output=True,
            text=True,
        )
        lines += found.stdout.splitlines()
    return sorted({line.partition('"value":')[2].removesuffix("}") for line in lines})
