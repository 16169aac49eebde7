"""The programs of others that judge our evidence: datalad, rocrate-validator, runcrate."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from .git import ENV

REPO = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("MAO_VAR_DIR", REPO / "var")) / "evidence-tools" / "bin"


def evidence_tool(name: str) -> Path:
    """The program; a test that needs it fails when it is absent, since a skipped one shows nothing."""
    path = TOOLS / name
    if not path.exists():
        pytest.fail(f"{name} is not at {path}: run scripts/machine.sh evidence-tools")
    return path


def datalad(where: Path, *args: str, variables: Mapping[str, str] | None = None) -> str:
    """Runs datalad in a checkout; what it prints. Nothing of the person's configuration is read."""
    env = {**ENV, "HOME": str(where.parent), "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"} | dict(
        variables or {}
    )
    command = [str(evidence_tool("datalad")), *args]
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"datalad {' '.join(args)}:\n{done.stdout}{done.stderr}"
    return done.stdout
