"""What the steps of a run read and published: from their commits, and compared with the snapshots before."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mao_gateway.pages.formats import memory, number, plural, size, span
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_shared.commit_messages import read_manifest, read_step_record
from mao_shared.logs import mask_command, mask_env
from mao_shared.models import OutputFile, Run, StepRun
from mao_shared.models.dataset import CommitInfo, DatasetDiff, FileDifference, FileInfo
from mao_shared.states import StepPhase

MAX_FILES = 50  # shown of a step
MAX_STEPS = 20  # whose outputs are read
MAX_COMPARED = 6  # files of a step whose rows are compared
MAX_COMPARED_BYTES = 1_000_000  # larger ones are compared on the dataset's page
ROWS = 100
MAX_COMMAND_LINES = 20
MAX_KEPT = 1000
_SHELL = re.compile(r"""[\s"'$`\\;&|<>()*?#~!\[\]{}]""")  # what a shell does not take as it is


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a step wrote or removed. `change`: against the snapshot before; `counts`: of its rows."""

    path: str
    size: int | None
    sha256: str | None
    change: str
    counts: str = ""
    words: str = ""

    @property
    def is_here(self) -> bool:
        return self.change != "removed"


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What is known of a step that has begun. `files`: the first `MAX_FILES`; `total`: how many there are.

    `at`: the commit of its output, in quarantine if the step has no snapshot.
    """

    step: StepRun
    at: str | None = None
    commit: CommitInfo | None = None
    files: list[WrittenFile] = field(default_factory=list)
    total: int = 0
    bytes: int | None = None
    more: bool = False
    input: list[FileInfo] = field(default_factory=list)
    input_more: bool = False
    facts: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        counted = f"{number(self.total)}+ files" if self.more else plural(self.total, "file")
        return counted if self.bytes is None else f"{counted}, {size(self.bytes)}"


class _Compared:
    """Comparisons of rows, which never change: their key has both commits."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], tuple[str, str]] = OrderedDict()

    async def read(self, api: NodeApi, name: str, before: str, after: str, path: str) -> tuple[str, str]:
        """Return the counts of what changed in a file, and the same in words."""
        key = (name, before, after, path)
        if key not in self._kept:
            query = {"from": before, "to": after, "path": path, "limit": ROWS}
            diff = await api.optional(api.get(path_of("datasets", name, "diff"), DatasetDiff, **query))
            if diff is None:
                return "", "not known"
            self._kept[key] = describe_difference(diff)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


_compared = _Compared()


async def read_outputs(api: NodeApi, run: Run) -> list[StepOutput]:
    """Read what the begun steps of a run read and published, in the order of the steps."""
    begun = [step for step in run.steps if step.times and step.phase is not StepPhase.SKIPPED]
    return list(await asyncio.gather(*(_read_output(api, step) for step in begun[:MAX_STEPS])))


async def _read_output(api: NodeApi, step: StepRun) -> StepOutput:
    commit, diff, inputs = await asyncio.gather(
        _commit(api, step), _difference(api, step), _inputs(api, step)
    )
    record = read_step_record(commit.message) if commit else None
    listed = listed_files(record)
    files = written_files(listed, diff.files if diff else [], record)
    shown = await asyncio.gather(
        *(_compare(api, step, file, at) for at, file in enumerate(files[:MAX_FILES]))
    )
    manifest = read_manifest(record)
    sizes = [file.size for file in files if file.size is not None]
    return StepOutput(
        step=step,
        at=output_commit(step),
        commit=commit,
        files=list(shown),
        total=len(files) if listed or manifest is None else max(len(files), manifest[0]),
        bytes=sum(sizes) if listed else manifest[1] if manifest else None,
        more=not listed and diff is not None and diff.cursor is not None,
        input=inputs[0],
        input_more=inputs[1],
        facts=evidence_facts(step, record),
    )


def output_commit(step: StepRun) -> str | None:
    """Return the commit with a step's output: its snapshot, otherwise the quarantined one."""
    return step.snapshot or (step.quarantine.commit if step.quarantine else None)


async def _commit(api: NodeApi, step: StepRun) -> CommitInfo | None:
    commit = output_commit(step)
    if commit is None:
        return None
    path = path_of("datasets", step.spec.output.name, "log")
    found = await api.optional(api.listing(path, CommitInfo, branch=commit, limit=1))
    return found.items[0] if found and found.items else None


async def _difference(api: NodeApi, step: StepRun) -> DatasetDiff | None:
    commit = output_commit(step)
    if commit is None or step.base_commit is None:
        return None
    query = {"from": step.base_commit, "to": commit, "limit": 500}
    path = path_of("datasets", step.spec.output.name, "diff")
    return await api.optional(api.get(path, DatasetDiff, **query))


async def _inputs(api: NodeApi, step: StepRun) -> tuple[list[FileInfo], bool]:
    """Return the top of the input dataset as the step saw it, and whether there is more."""
    if step.spec.input is None or step.input_commit is None:
        return [], False
    path = path_of("datasets", step.spec.input.name, "files")
    found = await api.optional(api.listing(path, FileInfo, ref=step.input_commit, limit=MAX_FILES))
    return (found.items, found.cursor is not None) if found else ([], False)


async def _compare(api: NodeApi, step: StepRun, file: WrittenFile, place: int) -> WrittenFile:
    """Return a changed file with the counts of its rows or lines, unless it is large."""
    commit = output_commit(step)
    if file.change != "changed" or commit is None or step.base_commit is None:
        return file
    if place >= MAX_COMPARED or file.size is None or file.size > MAX_COMPARED_BYTES:
        return file
    name = step.spec.output.name
    counts, words = await _compared.read(api, name, step.base_commit, commit, file.path)
    return WrittenFile(file.path, file.size, file.sha256, file.change, counts, words)


def listed_files(record: dict[str, Any] | None) -> dict[str, OutputFile]:
    """Return the files that a step's record lists; none if it has too many, or if they cannot be read."""
    outputs = record.get("outputs") if record else None
    if not isinstance(outputs, dict):
        return {}
    try:
        return {str(path): OutputFile.model_validate(file) for path, file in outputs.items()}
    except ValidationError:
        return {}


def written_files(
    listed: dict[str, OutputFile], differing: Sequence[FileDifference], record: dict[str, Any] | None
) -> list[WrittenFile]:
    """Return what a step wrote and removed, changed files first, each kind by path."""
    changes = {each.path: str(each.change) for each in differing}
    paths = listed.keys() | changes.keys()
    same = "same" if record else ""
    found = [
        WrittenFile(
            path,
            listed[path].size if path in listed else None,
            listed[path].sha256 if path in listed else None,
            changes.get(path, same),
        )
        for path in paths
    ]
    order = {"changed": 0, "added": 1, "removed": 2}
    return sorted(found, key=lambda file: (order.get(file.change, 3), file.path))


def describe_difference(diff: DatasetDiff) -> tuple[str, str]:
    """Return what changed in a file, as counts and in words."""
    if diff.rows is not None:
        rows = diff.rows
        counts = f"+{number(rows.added)} \u2212{number(rows.removed)} ~{number(rows.changed)}"
        key = f"; key {', '.join(rows.key)}" if rows.key else "; by position"
        changed = plural(rows.changed, "record")
        words = f"{changed} changed, {number(rows.added)} added, {number(rows.removed)} removed"
        columns = [f"column {name} added" for name in rows.columns_added]
        columns += [f"column {name} removed" for name in rows.columns_removed]
        return counts, "; ".join([words + key, *columns])
    if diff.lines is not None:
        lines = diff.lines.lines
        if diff.lines.truncated:
            return "", f"more than {ROWS} lines of difference"
        added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
        removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
        words = f"{plural(added, 'line')} added, {number(removed)} removed"
        return f"+{number(added)} \u2212{number(removed)}", words
    return "", diff.note or ""


def evidence_facts(step: StepRun, record: dict[str, Any] | None) -> list[tuple[str, list[str]]]:
    """Return what is recorded of how a step ran, as names and lines. Secrets are masked."""
    spec, record = step.spec, record or {}
    limits = spec.limits
    cpu = [] if limits.cpu is None else [f"{limits.cpu:g} CPU"]
    bounds = [f"time {span(limits.time)}", f"memory {memory(limits.memory)}", f"pids {limits.pids}", *cpu]
    versions = record.get("versions")
    told = versions if isinstance(versions, dict) else {}
    engine = [step.engine] if step.engine else []
    facts = {
        "Command": _command(spec.command),
        "Environment": [f"{name}={value}" for name, value in mask_env(spec.env).items()],
        "Limits": [", ".join(bounds)],
        "Network": [str(spec.network)],
        "Privileges": spec.asked(),
        "User": [step.user] if step.user else [],
        "Exit": _exit(step),
        "Versions": [f"{name} {value}" for name, value in sorted(told.items())] or engine,
    }
    return [(name, lines) for name, lines in facts.items() if lines]


def _quote(word: str) -> str:
    """Return a word as a shell takes it; a masked value stays as it is seen elsewhere."""
    return shlex.quote(word) if not word or _SHELL.search(word) else word


def _command(words: list[str] | None) -> list[str]:
    if not words:
        return ["that of the image"]
    lines = " ".join(map(_quote, mask_command(words))).splitlines()
    more = len(lines) - MAX_COMMAND_LINES
    return (
        lines if more <= 0 else [*lines[:MAX_COMMAND_LINES], f"… {plural(more, 'more line', 'more lines')}"]
    )


def _exit(step: StepRun) -> list[str]:
    if step.exit is None:
        return []
    why = ", out of memory" if step.exit.oom else ", timed out" if step.exit.timed_out else ""
    return [f"code {step.exit.code}{why}"]
