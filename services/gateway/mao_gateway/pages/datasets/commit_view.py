"""What the page of a commit says of where its content comes from. Pure.

A commit's message may have been written by anybody: what is not of the form that MAO writes is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mao_gateway.pages.formats import plural, size, span
from mao_shared.commit_messages import BEGIN, END, read_manifest, read_origin, read_step_record, recorded_env
from mao_shared.models import OutputFile
from mao_shared.models.dataset import CommitInfo, FileDifference
from mao_shared.text import harmless

MAX_LINES = 20  # of a command
MAX_MESSAGE_LINES = 60
MAX_RECORD_LINES = 2000


@dataclass(frozen=True, slots=True)
class CommitLink:
    """A commit of a dataset that another one names."""

    dataset: str
    commit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a commit decides about a quarantined snapshot, or that it is an accepted one."""

    state: str
    snapshot: str
    by: str
    note: str
    accepted_as: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a commit's record says. `facts`: name and lines of the step that made it; empty without one."""

    pipeline: str
    trigger: str
    facts: Sequence[tuple[str, Sequence[str]]]
    inputs: Sequence[CommitLink]
    base: CommitLink | None
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that a commit changes. `sha256`: as recorded."""

    path: str
    change: str
    size: int | None
    sha256: str | None = None


def read_provenance(dataset: str, info: CommitInfo) -> Provenance:
    """Return what the record in a commit's message says."""
    record = read_step_record(info.message) or {}
    return Provenance(
        pipeline=_text(record, "pipeline"),
        trigger=_text(record, "trigger"),
        facts=_facts(record),
        inputs=_commits(_map(record, "input"), "commit", ""),
        base=next(iter(_commits({"dataset": dataset, **_map(record, "output")}, "base", "")), None),
        decision=_decision(record),
    )


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _map(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _commits(found: Mapping[str, Any], name: str, note: str) -> list[CommitLink]:
    dataset, commit = _text(found, "dataset"), _text(found, name)
    if not dataset or not is_commit(commit):
        return []
    return [CommitLink(dataset, commit, note or _text(found, "branch"))]


def is_commit(text: str) -> bool:
    """True for what may stand in the address of a commit's page."""
    return 4 <= len(text) <= 64 and all(letter in "0123456789abcdef" for letter in text)


def _decision(record: Mapping[str, Any]) -> Decision | None:
    """Return the decision that a commit of the quarantine branch records, or that of an accepted snapshot."""
    if record.get("kind") == "quarantine":
        state, commit = _text(record, "state"), _text(record, "snapshot")
        accepted = _text(record, "accepted_as")
        found = record
    else:
        found = _map(record, "quarantine")
        state, commit, accepted = "accepted", _text(found, "commit"), ""
    if not is_commit(commit):
        return None
    return Decision(
        state,
        commit,
        _text(found, "by"),
        _text(found, "note"),
        accepted if is_commit(accepted) else "",
    )


def _facts(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return how a step was run, as names and lines, without what the record does not have."""
    image, log, exit_ = _map(record, "image"), _map(record, "log"), _map(record, "exit")
    manifest = read_manifest(record)
    attempt = record.get("attempt")
    facts = {
        "Image": [*_values(image, "name", "pinned", "platform")],
        "Tool": [*_values(record, "tool")],
        "Command": _command(record.get("command")),
        "Environment": _pairs(recorded_env(record), "="),
        "Limits": [", ".join(_limits(_map(record, "limits")))],
        "Network": [*_values(record, "network")],
        "Privileges": _pairs(_map(record, "privileges"), " "),
        "User": [*_values(record, "user")],
        "Attempt": [str(attempt)] if type(attempt) is int and attempt > 1 else [],
        "Exit": [f"code {exit_['code']}"] if type(exit_.get("code")) is int else [],
        "Wrote": [f"{plural(manifest[0], 'file')}, {size(manifest[1])}"] if manifest else [],
        "Manifest": [*_values(_map(record, "manifest"), "sha256")],
        "Log": [
            *([size(log["bytes"])] if type(log.get("bytes")) is int else []),
            *_values(log, "sha256"),
        ],
        "Versions": _pairs(_map(record, "versions"), " "),
    }
    return [(name, kept) for name, lines in facts.items() if (kept := [line for line in lines if line])]


def _values(found: Mapping[str, Any], *names: str) -> Iterable[str]:
    return (text for name in names if (text := _text(found, name)))


def _pairs(found: Mapping[str, Any], between: str) -> list[str]:
    return [
        f"{name}{between}{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(found.items())
    ]


def _limits(found: Mapping[str, Any]) -> list[str]:
    """Return the limits of a step in their units."""
    units: dict[str, Callable[[float], str]] = {"time": span, "grace": span, "memory": size}
    return [
        f"{name} {units.get(name, '{:g}'.format)(value)}"
        for name, value in sorted(found.items())
        if type(value) in (int, float)
    ]


def _command(words: Any) -> list[str]:
    if not isinstance(words, list) or not words:
        return []
    lines = " ".join(map(str, words)).splitlines()
    more = len(lines) - MAX_LINES
    return lines if more <= 0 else [*lines[:MAX_LINES], f"\u2026 {plural(more, 'more line')}"]


def changed_files(differing: Sequence[FileDifference], info: CommitInfo) -> list[ChangedFile]:
    """Return the files that a commit changes, with the digests of its record."""
    outputs = _map(read_step_record(info.message) or {}, "outputs")
    return [
        ChangedFile(each.path, str(each.change), each.size, _digest(outputs.get(each.path)))
        for each in differing
    ]


def recorded_files(info: CommitInfo, limit: int) -> list[ChangedFile]:
    """Return the files that a commit's record lists, for a commit that has none before it."""
    outputs = _map(read_step_record(info.message) or {}, "outputs")
    found = []
    for path, listed in sorted(outputs.items())[:limit]:
        length = listed.get("size") if isinstance(listed, dict) else None
        found.append(ChangedFile(path, "added", length if type(length) is int else None, _digest(listed)))
    return found


def _digest(listed: Any) -> str | None:
    try:
        return OutputFile.model_validate(listed).sha256
    except ValueError:
        return None


def message_lines(message: str) -> list[str]:
    """Return the lines of a message without the record, which is shown apart."""
    head, begin, rest = message.partition(f"\n{BEGIN}\n")
    _, end, tail = rest.rpartition(f"\n{END}\n")
    text = f"{head.rstrip()}\n\n{tail.strip()}" if begin and end else message
    return harmless(text.strip()).splitlines()[:MAX_MESSAGE_LINES]


def record_lines(message: str) -> list[str]:
    """Return the record in a message as lines of JSON; none if it has no record."""
    record = read_step_record(message)
    if record is None:
        return []
    lines = json.dumps(record, indent=2, sort_keys=True).splitlines()  # in ASCII
    more = len(lines) - MAX_RECORD_LINES
    return lines if more <= 0 else [*lines[:MAX_RECORD_LINES], f"\u2026 {plural(more, 'more line')}"]


def round_of(info: CommitInfo) -> str | None:
    """Return the round that decided a commit of ground truth, or None."""
    return read_origin(info.message).round
