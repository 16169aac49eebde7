"""The message of a snapshot's commit: how it came about, for people, for DataLad's `rerun` and for us.

[DATALAD RUNCMD] <pipeline>: <step> on <node>

=== Do not change lines below ===
{ DataLad's run record, with ours under "mao" }
^^^ Do not change lines above ^^^

MAO-Run: <run id>
MAO-Step: <step name>
"""

from __future__ import annotations

import json
import re
from typing import Any

from mao_shared.models import Run, StepRun, format_time
from mao_shared.workspace import TOOL_DATA, TOOL_INPUT

_BEGIN = "=== Do not change lines below ==="
_END = "^^^ Do not change lines above ^^^"
_TRAILER = re.compile(r"^(MAO-Run|MAO-Step): (\S+)$", re.MULTILINE)


def commit_message(run: Run, step: StepRun) -> str:
    """The whole message of the commit that holds a step's output."""
    subject = f"[DATALAD RUNCMD] {run.pipeline}: {step.spec.name} on {run.node}"
    record = json.dumps(run_record(run, step), indent=1, sort_keys=True)
    return f"{subject}\n\n{_BEGIN}\n{record}\n{_END}\n\nMAO-Run: {run.id}\nMAO-Step: {step.spec.name}\n"


def run_record(run: Run, step: StepRun) -> dict[str, Any]:
    """DataLad's keys (chain … pwd), and under `mao` what identifies the run, its tool and its input."""
    return {
        "chain": [],
        "cmd": rerun_command(step),
        "exit": 0 if step.exit is None else step.exit.code,
        "extra_inputs": [],
        "inputs": [],
        "outputs": ["."],
        "pwd": ".",
        "mao": _own_record(run, step),
    }


def _own_record(run: Run, step: StepRun) -> dict[str, Any]:
    spec = step.spec
    times = {str(phase): format_time(moment) for phase, moment in step.times.items()}
    facts = {
        "run": run.id,
        "pipeline": run.pipeline,
        "node": run.node,
        "trigger": run.trigger,
        "scheduled_for": None if run.scheduled_for is None else format_time(run.scheduled_for),
        "step": spec.name,
        "attempt": step.attempt,
        "tool": spec.tool,
        "image": spec.image.model_dump(mode="json"),
        "env": sorted(spec.env),  # names only: a value may be a secret
        "output": {"dataset": spec.output.name, "base": step.base_commit},
        "input": None
        if spec.input is None
        else {"dataset": spec.input.name, "branch": spec.input.branch, "commit": step.input_commit},
        "times": times,
    }
    return {key: value for key, value in facts.items() if value is not None}


def rerun_command(step: StepRun) -> list[str]:
    """What repeats the step in a checkout of its dataset; DataLad fills {pwd} in.

    An input dataset has to be checked out beside it, as `../input` at the commit of the record.
    """
    command = ["docker", "run", "--rm", "-v", f"{{pwd}}:{TOOL_DATA}"]
    if step.spec.input is not None:
        command += ["-v", f"{{pwd}}/../input:{TOOL_INPUT}:ro"]
    arguments = [_literal(word) for word in step.spec.command or []]
    return [*command, step.spec.image.pinned, *arguments]


def _literal(word: str) -> str:
    """Braces are DataLad's placeholders; doubled they stand for themselves."""
    return word.replace("{", "{{").replace("}", "}}")


def trailers(message: str) -> dict[str, str]:
    """`MAO-Run` and `MAO-Step` of a commit message, as far as it has them."""
    _, _, tail = message.rpartition(_END)
    return {match[1]: match[2] for match in _TRAILER.finditer(tail)}


def subject(message: str) -> str:
    """The first line without DataLad's mark."""
    return message.partition("\n")[0].removeprefix("[DATALAD RUNCMD] ")


def is_snapshot_of(message: str, run_id: str, step: str) -> bool:
    """Whether a commit message is that of this step of this run."""
    return trailers(message) == {"MAO-Run": run_id, "MAO-Step": step}
