"""Python interface of same_by_hand.sh."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .node import NAME, tool_image

SCRIPT = Path(__file__).with_name("same_by_hand.sh")


def make_clone(folder: Path) -> Path:
    """Create a bare repository, and a clone of it on the node's branch; return `folder`."""
    subprocess.run([str(SCRIPT), "init", str(folder), NAME], check=True)
    return folder


def run_argv(clone: Path, command: Sequence[str]) -> list[str]:
    return [str(SCRIPT), "run", str(clone), NAME, tool_image(), *command]


def remove_leftovers() -> None:
    """Remove containers of an interrupted script, and the network of the node's tools."""
    listing = ["docker", "ps", "--all", "--quiet", "--filter", "label=mao.bench=by-hand"]
    if containers := subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run(["docker", "rm", "--force", *containers], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "mao_runner", "--remove-tool-network"], check=True)
