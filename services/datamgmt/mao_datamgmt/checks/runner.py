"""Checks output in a child process, which is limited and killed: files and schemas come from strangers.

Run as a module, it is the child: it reads a CheckTask as JSON from stdin and writes a CheckResult, on a line,
for each check as soon as it is decided. So a check that takes too long fails alone with those after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mao_git import Clone
from mao_shared.logs import get_logger
from mao_shared.models import ControlMetric, Point, Record, Timestamp
from mao_shared.models.check import Check, CheckResult
from mao_shared.models.common import STORED

from .rules import Finding, Output, evaluate, result_of

log = get_logger(__name__)

MAX_CHECK_SECONDS = 120.0  # of all checks of a step
MAX_CHECK_MEMORY = 1 << 30  # bytes, without the files that git maps into memory
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "TZ")
_REFUSED = frozenset(
    {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"}
    | {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}
)


class CheckTask(Record):
    """The checks of a step's output. `repository`: path of the clone; `tree`, `base`: of it and before it."""

    repository: Path
    tree: str
    base: str
    checks: list[Check]
    metrics: list[ControlMetric] = Field(default_factory=list)
    points: dict[str, list[Point]] = Field(default_factory=dict)
    moment: Timestamp


def run_checks(task: CheckTask, max_seconds: float = MAX_CHECK_SECONDS) -> list[CheckResult]:
    """Return the result of each check, in their order. Blocking; raises OSError if no process can start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mao_datamgmt.checks.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
    )
    late = False
    with process:
        try:
            out, err = process.communicate(task.model_dump_json().encode(), max_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            late = True
            out, err = process.communicate()
        except BaseException:
            process.kill()
            raise
    results = _read_results(task.checks, out)
    if len(results) < len(task.checks):
        reason = f"it took longer than {max_seconds:.0f} s" if late else _ending(process.returncode)
        log.warning("checks.ended", reason=reason, output=err.decode(errors="replace").strip()[-500:])
        first, *others = task.checks[len(results) :]
        results.append(result_of(first, Finding(f"it cannot be checked: {reason}")))
        skipped = f"it was not checked, since {first.name!r} before it could not be"
        results += [result_of(check, Finding(skipped)) for check in others]
    return results


def _ending(code: int) -> str:
    if code < 0:
        return f"the process was ended by signal {-code}, as for too much memory or time"
    return f"the process ended with code {code}"


def _read_results(checks: Sequence[Check], out: bytes) -> list[CheckResult]:
    """Return the results that the child has written; a line that was cut off is none."""
    results: list[CheckResult] = []
    for check, line in zip(checks, out.split(b"\n"), strict=False):
        try:
            result = CheckResult.model_validate_json(line)
        except ValidationError:
            break
        if result.name != check.name:
            break
        results.append(result)
    return results


# The child process


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        raise PermissionError("nothing is retrieved or started here")


def confine(max_seconds: float = MAX_CHECK_SECONDS) -> None:
    """Limit this process for good: memory, time, connections and programs."""
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process and not a service
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_CHECK_MEMORY, MAX_CHECK_MEMORY))
    seconds = int(max_seconds) + 1  # it must end even if the data manager is killed meanwhile
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)


def perform(document: Mapping[str, Any]) -> None:
    """Check in this process, and write the results. Blocking."""
    task = CheckTask.model_validate(document, context=STORED)
    output = Output(
        clone=Clone.open(task.repository),
        tree=task.tree,
        base=task.base,
        metrics={metric.name: metric for metric in task.metrics},
        points=task.points,
        moment=task.moment,
    )
    for check in task.checks:
        sys.stdout.write(evaluate(check, output).model_dump_json() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    given = json.loads(sys.stdin.buffer.read())
    confine()
    perform(given)
