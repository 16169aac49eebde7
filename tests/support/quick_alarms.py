"""Nodes whose conditions raise alarms after one second and end them after five, to shorten tests."""

from __future__ import annotations

import os
from pathlib import Path

_AT_START = """\
import sys

if "mao_node.fork_server" in sys.orig_argv:
    from mao_shared.service.alarms import ConditionAlarms

    ConditionAlarms.__init__.__kwdefaults__.update(settle=1.0, calm=5.0)
"""


def quick_alarms(folder: Path) -> dict[str, str]:
    """Return the environment of such a node; its services fork from a process that loads `folder`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_AT_START)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
