"""In a container, a loop runs the federation's etcd while its configuration exists."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/federation-etcd.sh"
STUB = """#!/bin/sh
[ "$1" = --version ] && exit 0
trap 'echo stopped; exit 1' TERM
text=$(cat "${1#--config-file=}")
echo "started $text"
[ "$text" = removed ] && exit 0
while :; do sleep 0.05; done
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    stub = tmp_path / "bin/etcd"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    path = f"{stub.parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        [SCRIPT, tmp_path / "etcd.yaml"],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_federation_etcd_follows_its_configuration(loop: subprocess.Popen[str], tmp_path: Path) -> None:
    config, draft = tmp_path / "etcd.yaml", tmp_path / "draft"

    def configure(text: str) -> None:
        draft.write_text(text)
        draft.replace(config)

    configure("one")
    assert said(loop) == "started one"
    configure("two")
    assert said(loop) == "stopped"
    assert said(loop) == "started two"
    config.unlink()
    assert said(loop) == "stopped"
    configure("removed")
    assert said(loop) == "started removed"
    configure("three")
    assert said(loop) == "started three"  # not once more with what has ended well
    loop.terminate()
    assert said(loop) == "stopped"
    assert loop.wait(20) == 0
