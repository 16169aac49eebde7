"""`maoctl` against a real node: files applied twice, what it prints applied again, every reading command."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from maoctl.exits import ExitCode
from maoctl.main import run_command
from maoctl.session import CliSession
from tests.cli.test_every_command import COMMANDS, WITH_OUTPUT, check_output
from tests.support.git import bare_repository
from tests.support.node import NativeNode, native_node

pytestmark = [pytest.mark.docker, pytest.mark.etcd]

READS = {
    "get": "{noun}",
    "list": "",
    "show": "{noun}",
    "log": "{dataset}",
    "files": "{dataset}",
    "branches": "{dataset}",
    "runs": "{pipeline}",
    "status": "",
    "trusted": "",
    "diff": "{pipeline}",
    "ranking": "{dataset}",
    "verify": "{run}",
}
"""The arguments of the commands that only read, by verb."""
NAMES = {"tool": "crawler", "dataset": "data", "pipeline": "hourly", "webhook": "lab"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a separate node, since a test removes what its files do not declare."""
    receiver = {"MAO_WEBHOOK_HOSTS": "127.0.0.1:9"}  # nothing listens there, and nothing is sent
    with native_node(tmp_path_factory.mktemp("client"), env=receiver) as node:
        yield node


@pytest.fixture(scope="module")
def files(node: NativeNode, tool_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Apply a folder with a record of each kind, and run the pipeline once."""
    folder = tmp_path_factory.mktemp("records")
    remote = bare_repository(tmp_path_factory.mktemp("remote") / "remote.git")
    records: list[dict[str, Any]] = [
        {"kind": "job", "pipeline": "hourly", "cron": "0 3 1 1 *", "timezone": "Europe/Zurich"},
        {"kind": "enrolment", "pipeline": "hourly"},
        {"kind": "pipeline", "name": "hourly", "steps": [{"tool": "crawler", "dataset": "data"}]},
        {"kind": "dataset", "name": "data", "master": str(remote)},
        {"kind": "tool", "name": "crawler", "author": "A. Scientist", "image": tool_image},
        {"kind": "webhook", "name": "lab", "url": "http://127.0.0.1:9/alarms"},
    ]
    for record in records:
        (folder / f"{record['kind']}.yaml").write_text(yaml.safe_dump(record), "utf-8")
    created = node.maoctl("apply", "-f", str(folder)).stdout
    assert created.count(" created\n") == len(records)
    node.maoctl("pipeline", "run", "hourly", "--wait")
    return folder


def in_process(node: NativeNode, *args: str) -> tuple[int, str, str]:
    """Run a command line in this process; returns exit code, stdout and stderr."""
    session = CliSession({**node.env, "MAO_URL": node.url})
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run_command(args, session)
    return code, out.getvalue(), err.getvalue()


def test_client_apply_twice_changes_nothing(node: NativeNode, files: Path) -> None:
    again = node.maoctl("apply", "-f", str(files)).stdout

    assert node.maoctl("diff", "-f", str(files), check=False).stdout == ""
    assert again.count(" unchanged\n") == len(again.splitlines()) == 6


@pytest.mark.parametrize("how", ["json", "yaml"])
@pytest.mark.parametrize("noun", ["tool", "dataset", "pipeline", "job", "webhook"])
def test_client_what_get_prints_applies(
    node: NativeNode, files: Path, tmp_path: Path, noun: str, how: str
) -> None:
    shown = in_process(node, noun, "get", "-o", how)[1]
    (tmp_path / f"shown.{how}").write_text(shown, "utf-8")

    applied = in_process(node, "apply", "-f", str(tmp_path))

    [name] = in_process(node, noun, "get", "-o", "name")[1].split()
    assert applied == (0, f"{name} unchanged\n", "")


def test_client_apply_changes_a_job_and_prunes(node: NativeNode, files: Path, tmp_path: Path) -> None:
    job: dict[str, Any] = {"kind": "job", "pipeline": "hourly", "cron": "0 4 1 1 *", "catch_up": "none"}
    file = tmp_path / "job.yaml"
    for change, result in (({}, "created"), ({"catch_up": "all"}, "updated"), ({"paused": True}, "updated")):
        file.write_text(yaml.safe_dump(job | change), "utf-8")
        job |= change
        assert node.maoctl("diff", "-f", str(file), check=False).returncode == 1
        assert node.maoctl("apply", "-f", str(file)).stdout.endswith(f" {result}\n")
        assert node.maoctl("apply", "-f", str(file)).stdout.endswith(" unchanged\n")

    pruned = node.maoctl("apply", "-f", str(files), "--prune", "--yes").stdout

    assert pruned.count(" removed\n") == 1
    assert len(node.maoctl("job", "get", "-o", "name").stdout.split()) == 1


def reading() -> list[str]:
    return [
        path
        for path in WITH_OUTPUT
        if path.split()[-1] in READS or path in ("doctor", "top", "version", "inspect")
    ]


@pytest.mark.parametrize("path", reading())
def test_client_reads_are_parseable(node: NativeNode, files: Path, path: str) -> None:
    words = path.split()
    [job] = json.loads(in_process(node, "job", "get", "-o", "json")[1])
    [run] = json.loads(in_process(node, "run", "list", "-o", "json")[1])
    names = NAMES | {"job": job["id"], "run": run["id"], "node": node.name}
    arguments = READS.get(words[-1], "").format(noun=names.get(words[0], ""), **names)
    if path == "diff":
        arguments = f"-f {files}"
    optional = not any(p.param_type_name == "argument" and p.required for p in COMMANDS[path].params)
    for given in [arguments, ""] if optional and path != "diff" else [arguments]:
        for how in ("json", "table"):
            code, out, err = in_process(node, *words, *given.split(), "-o", how)
            assert code in set(ExitCode)
            assert code not in (ExitCode.UNREACHABLE, ExitCode.AUTH), err
            assert "Traceback" not in err
            if how == "json" and (out or code == ExitCode.OK):
                check_output(out, how, path)


def test_client_watch_shows_a_run_as_it_proceeds(node: NativeNode, files: Path) -> None:
    watch = [sys.executable, "-m", "maoctl", "run", "list", "--watch", "-o", "json"]
    environ = {**node.env, "MAO_URL": node.url}
    with subprocess.Popen(watch, env=environ, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        known = json.loads(watching.stdout.readline())
        started = node.maoctl("-o", "name", "pipeline", "run", "hourly").stdout.strip()
        phases = []
        for line in watching.stdout:
            run = json.loads(line)
            assert f"run/{run['id']}" == started != f"run/{known['id']}"
            phases.append(run["phase"])
            if run["phase"] == "succeeded":
                break
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == ExitCode.INTERRUPTED
    assert "running" in phases


def test_client_newest_log_and_names(node: NativeNode, files: Path) -> None:
    named = node.maoctl("run", "list", "-o", "name").stdout.split()
    log = node.maoctl("run", "logs").stdout

    assert log == node.maoctl("run", "logs", named[0]).stdout
    assert node.maoctl("run", "logs", "--pipeline", "hourly").stdout == log
    assert node.maoctl("describe", named[0], "-o", "name").stdout.split() == named[:1]
