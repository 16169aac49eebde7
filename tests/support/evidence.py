"""Third-party programs that check our evidence: datalad, rocrate-validator, runcrate."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from .git import ENV, git

REPO = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("MAO_VAR_DIR", REPO / "var")) / "evidence-tools" / "bin"


def evidence_tool(name: str) -> Path:
    """Return the path of a program; fail, rather than skip, the test when it is absent."""
    path = TOOLS / name
    if not path.exists():
        pytest.fail(f"{name} is not at {path}: run scripts/machine.sh evidence-tools")
    return path


def datalad(where: Path, *args: str, variables: Mapping[str, str] | None = None) -> str:
    """Run datalad in a checkout, without the user's configuration, and return its output."""
    env = {**ENV, "HOME": str(where.parent), "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"} | dict(
        variables or {}
    )
    command = [str(evidence_tool("datalad")), *args]
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"datalad {' '.join(args)}:\n{done.stdout}{done.stderr}"
    return done.stdout


CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": "ro-crate-1.1-context.json",
    "https://w3id.org/ro/terms/workflow-run/context": "workflow-run-context.json",
}


def rocrate_issues(crate: Path) -> str:
    """Return the issues rocrate-validator finds in a crate, down to RECOMMENDED; empty if none.

    It works offline with the contexts from the data beside the project; without them the test is skipped.
    """
    folder = shared_data() / "ro-crate-contexts"
    pairs = [word for url, name in CONTEXTS.items() for word in (url, str(folder / name))]
    cache = crate.parent / "contexts"
    filler = Path(__file__).with_name("cached_contexts.py")
    filled = _evidence("python", str(filler), str(cache), *pairs)
    assert filled.returncode == 0, filled.stdout
    report = crate.parent / "report.txt"
    options = ["-p", "process-run-crate-0.5", "-l", "recommended", "--offline", "--cache-path", str(cache)]
    options += ["--verbose", "--output-format", "text", "--output-file", str(report)]
    done = _evidence("rocrate-validator", "-y", "--disable-color", "validate", *options, str(crate))
    if done.returncode == 0:
        return ""
    assert report.exists(), done.stdout
    _, _, issues = report.read_text().partition("requirements have not been met")
    return " ".join(issues.split())


def runcrate_report(crate: Path) -> str:
    """Return runcrate's report of the actions in a crate."""
    done = _evidence("runcrate", "report", str(crate))
    assert done.returncode == 0, done.stdout
    return done.stdout


def find_shared_data() -> Path | None:
    """Return the folder with published data beside the project, or None."""
    common = git(REPO, "rev-parse", "--path-format=absolute", "--git-common-dir")
    folder = Path(common).parent.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def shared_data() -> Path:
    """Return the folder with published data beside the project; skip the test if it is absent."""
    folder = find_shared_data()
    if folder is None:
        pytest.skip("the data to test with is not beside the project (shared/data)")
    return folder


def _evidence(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [str(evidence_tool(name)), *args]
    return subprocess.run(
        command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
