"""Nodes whose vote computation is delayed or falsified, by a sitecustomize module."""

from __future__ import annotations

import os
from pathlib import Path

_AT_START = """\
import dataclasses, os, sys, time
from pathlib import Path

here, me = Path(__file__).parent, os.environ.get("MAO_NODE", "")
if "mao_datamgmt.rounds.compute" in sys.orig_argv:
    lies = (here / f"lies-{me}").exists()
    while not lies and (here / "held").exists():
        time.sleep(0.05)
    if lies:
        import mao_vote

        honest = mao_vote.vote_round

        def lie(clone, *, commits, **how):
            voted, mine = honest(clone, commits=commits, **how), commits[me]
            return dataclasses.replace(voted, commit=mine, tree=clone.tree(mine))

        mao_vote.vote_round = lie
"""


class Tampered:
    """Control over the vote computation of nodes started with `env`; by default it is honest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_AT_START)
        self._folder = folder
        self.env = {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def make_liar(self, node: str) -> None:
        """Make the node attest its own snapshot from now on, whatever the vote's result."""
        (self._folder / f"lies-{node}").touch()

    def hold_honest(self) -> None:
        """Pause the vote computation of honest nodes until `release`."""
        (self._folder / "held").touch()

    def release(self) -> None:
        (self._folder / "held").unlink(missing_ok=True)

    def end(self) -> None:
        """Make all nodes honest and release them."""
        for path in (*self._folder.glob("lies-*"), self._folder / "held"):
            path.unlink(missing_ok=True)
