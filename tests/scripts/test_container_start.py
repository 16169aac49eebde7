"""The settings with which a service starts in its container, under either of their two names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/container-start.sh"
OWN_ETCD = "unix:///run/mao/localhost:2379"


def started(folder: Path, **env: str) -> list[str]:
    """Return the node's name, etcd's address and the module that the start script would run."""
    python = folder / "python3"
    python.write_text('#!/bin/sh\necho "$MAO_NODE"; echo "$MAO_ETCD_ENDPOINTS"; echo "$@"\n')
    python.chmod(0o755)
    environ = {"PATH": f"{folder}:{os.environ['PATH']}", "MAO_SERVICE": "runner", **env}
    done = subprocess.run([str(SCRIPT)], env=environ, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:3]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "node"),
        ({"MAO_NODE": "", "workuser": ""}, "node"),  # as compose hands down what nobody has set
        ({"workuser": "zurich"}, "zurich"),
        ({"MAO_NODE": "", "workuser": "zurich"}, "zurich"),
        ({"MAO_NODE": "bern", "workuser": "zurich"}, "bern"),
    ],
)
def test_container_start_node_is_named_by_either_setting(
    tmp_path: Path, env: dict[str, str], name: str
) -> None:
    assert started(tmp_path, **env) == [name, OWN_ETCD, "-m mao_runner"]


@pytest.mark.parametrize(
    ("env", "etcd"),
    [
        ({"MAO_ETCD_ENDPOINTS": "", "etcdhost": ""}, OWN_ETCD),
        ({"MAO_ETCD_ENDPOINTS": "etcd.lab:2379"}, "etcd.lab:2379"),
        ({"MAO_ETCD_ENDPOINTS": "", "etcdhost": "etcd.lab:2379"}, ""),  # the settings take the other name
    ],
)
def test_container_start_own_etcd_is_taken_where_none_is_named(
    tmp_path: Path, env: dict[str, str], etcd: str
) -> None:
    assert started(tmp_path, **env)[1] == etcd
