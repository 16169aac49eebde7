"""same_by_hand.sh from Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .node import NAME, tool_image

SCRIPT = Path(__file__).with_name("same_by_hand.sh")


def make_clone(folder: Path) -> Path:
    """A bare repository and a clone of it, on the branch named after the node."""
    subprocess.run([str(SCRIPT), "init", str(folder), NAME], check=True)
    return folder


def run_argv(clone: Path, command: Sequence[str]) -> list[str]:
    return [str(SCRIPT), "run", str(clone), NAME, tool_image(), *command]


def remove_what_is_left() -> None:
    """Removes what an interrupted script has left, and the network of the node's tools."""
    listing = ["docker", "ps", "--all", "--quiet", "--filter", "label=mao.bench=by-hand"]
    if left := subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run(["docker", "rm", "--force", *left], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "mao_runner", "--remove-tool-network"], check=True)
