"""What commit messages say about where a commit's content comes from: a run's record, and trailers.

[DATALAD RUNCMD] <pipeline>: <step> on <node>

=== Do not change lines below ===
{ DataLad's run record, with MAO's under "mao" }
^^^ Do not change lines above ^^^

MAO-Run: <run id>
MAO-Step: <step name>

The commits of rounds have `MAO-Round` and `MAO-Tick` in place of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mao_shared.models.common import Timestamp

NOT_RECORDED = "(not recorded)"
BEGIN = "=== Do not change lines below ==="
END = "^^^ Do not change lines above ^^^"
_TRAILER = re.compile(r"^(MAO-Run|MAO-Step): (\S+)$", re.MULTILINE)
_ROUND_TRAILER = re.compile(r"^(MAO-Round|MAO-Tick): (\S{1,200})$", re.MULTILINE)
_TIMESTAMP: TypeAdapter[datetime] = TypeAdapter(Timestamp)


def with_fact(message: str, name: str, fact: Mapping[str, Any]) -> str:
    """Return a snapshot's message with a fact added to its record under `mao`."""
    head, begin, rest = message.partition(f"\n{BEGIN}\n")
    text, end, tail = rest.rpartition(f"\n{END}\n")
    record = json.loads(text)
    record["mao"][name] = fact
    return f"{head}{begin}{json.dumps(record, indent=1, sort_keys=True)}{end}{tail}"


def embed_record(subject: str, record: Mapping[str, Any]) -> str:
    """Return a commit message with a record, which `read_step_record` reads."""
    return f"{subject}\n\n{BEGIN}\n{json.dumps(record, indent=1, sort_keys=True)}\n{END}\n"


def read_step_record(message: str) -> dict[str, Any] | None:
    """Return the record under `mao` in a commit message, or None if there is none."""
    _, begin, rest = message.partition(f"\n{BEGIN}\n")
    text, end, _ = rest.rpartition(f"\n{END}\n")
    if not (begin and end):
        return None
    try:
        record = json.loads(text).get("mao")
    except (ValueError, AttributeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def recorded_env(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a step's record; most records have only their names, without values."""
    env = record.get("env")
    if isinstance(env, dict):
        return {str(name): str(value) for name, value in env.items()}
    return dict.fromkeys(map(str, env), NOT_RECORDED) if isinstance(env, list) else {}


def read_manifest(record: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Return the number of files and their bytes in a step's record; None if it has no such numbers."""
    found = (record or {}).get("manifest")
    if not isinstance(found, dict):
        return None
    files, total = found.get("files"), found.get("bytes")
    return (files, total) if type(files) is int and type(total) is int else None


def trailers(message: str) -> dict[str, str]:
    """Return the trailers `MAO-Run` and `MAO-Step` of a commit message, if present."""
    _, _, tail = message.rpartition(END)
    return {match[1]: match[2] for match in _TRAILER.finditer(tail)}


def commit_subject(message: str) -> str:
    """Return the first line without DataLad's prefix."""
    return message.partition("\n")[0].removeprefix("[DATALAD RUNCMD] ")


@dataclass(frozen=True, slots=True)
class Origin:
    """The run and step, or the round, that made a commit; None where the message names none.

    `tick`: the scheduled time of the run, or the tick of the round.
    """

    run: str | None = None
    step: str | None = None
    round: str | None = None
    tick: datetime | None = None


def read_origin(message: str) -> Origin:
    """Return what made a commit, from its message, which anybody may have written."""
    marks = trailers(message)
    if "MAO-Run" in marks:
        record = read_step_record(message) or {}
        tick = _parse_time(record.get("scheduled_for"))
        return Origin(run=marks["MAO-Run"], step=marks.get("MAO-Step"), tick=tick)
    of_round = {match[1]: match[2] for match in _ROUND_TRAILER.finditer(message)}
    if "MAO-Round" not in of_round:
        return Origin()
    return Origin(round=of_round["MAO-Round"], tick=_parse_time(of_round.get("MAO-Tick")))


def _parse_time(text: object) -> datetime | None:
    """Return a time with a zone; None for any other value."""
    try:
        return _TIMESTAMP.validate_python(text) if isinstance(text, str) else None
    except ValidationError:
        return None
