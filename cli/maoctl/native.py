"""Commands that work on the node's own files, so only where the node is installed: its launcher does them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from .exits import CommandError, ExitCode

LAUNCHER = "mao_node"


def on_this_machine(*words: str) -> None:
    """Runs the launcher with the settings of this environment; raises Stop with its exit code."""
    if importlib.util.find_spec(LAUNCHER) is None:
        raise CommandError(
            ExitCode.FAILED,
            f"'maoctl node {words[0]}' reads the node's own files, and no node is installed here.",
            next="Call it on the node's machine, in its checkout: ./dev maoctl node "
            f"{words[0]} …; under compose: docker compose run --rm -T {words[0]}, see docs/operations.md.",
        )
    done = subprocess.run([sys.executable, "-m", LAUNCHER, *words], env=_with_fetched_etcd(), check=False)  # noqa: S603
    if done.returncode:
        raise CommandError(
            ExitCode(done.returncode) if done.returncode in list(ExitCode) else ExitCode.FAILED
        )


def _with_fetched_etcd() -> dict[str, str]:
    """As `./dev` has it: the etcd that was fetched for the node's checkout comes before the machine's own,
    which may be too old for the data."""
    fetched = Path(sys.prefix).parent / "var/etcd/bin"
    path = os.environ.get("PATH", os.defpath)
    found = f"{fetched}{os.pathsep}{path}" if (fetched / "etcd").is_file() else path
    return {**os.environ, "PATH": found}
