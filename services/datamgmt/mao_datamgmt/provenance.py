"""The commit message of a snapshot: its provenance, for people, for DataLad's `rerun` and for MAO.

Its form is in mao_shared.commit_messages. The digests in the record are computed while the files are read
into git, so that no file is read twice.
"""

from __future__ import annotations

import hashlib
import io
import shlex
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mao_datamgmt.digests import HashingReader
from mao_git import ChangedFiles, Content
from mao_shared import __version__
from mao_shared.commit_messages import commit_subject as commit_subject
from mao_shared.commit_messages import embed_record as embed_record
from mao_shared.commit_messages import read_step_record as read_step_record
from mao_shared.commit_messages import trailers as trailers
from mao_shared.commit_messages import with_fact as with_fact
from mao_shared.host.data_dir import TOOL_DATA, TOOL_INPUT
from mao_shared.logs import MASK, mask_command, mask_env
from mao_shared.models import OutputFile, Run, StepRun, format_time
from mao_shared.models.run import tool_env

MAX_LISTED_FILES = 500  # up to this many, the record lists each file
SCHEMA = 1  # of the record under "mao"


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """The files that a step wrote and removed, for its record."""

    files: Mapping[str, OutputFile] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the manifest, and each file if there are few."""
        facts: dict[str, Any] = {"manifest": manifest(self.files)}
        if len(self.files) <= MAX_LISTED_FILES:
            facts["outputs"] = {path: file.model_dump() for path, file in sorted(self.files.items())}
        if len(self.removed) <= MAX_LISTED_FILES:
            facts["removed"] = sorted(self.removed)
        else:
            facts["removed_files"] = len(self.removed)
        return facts


class Digests:
    """Collects the digests of contents while they are read."""

    def __init__(self) -> None:
        self._readers: dict[str, HashingReader] = {}
        self._links: dict[str, OutputFile] = {}  # and other contents known without reading

    def watch(self, contents: Mapping[str, Content | None]) -> dict[str, Content | None]:
        """Return the contents by path, wrapped so that reading one records its digest."""
        watched = dict(contents)
        for path, content in contents.items():
            if content is None:
                continue
            if content.link is not None:  # a link's content is its target
                self.note(path, content.link.encode())
            elif content.open is not None:
                watched[path] = replace(content, open=partial(self._open, path, content.open))
        return watched

    def _open(self, path: str, open_content: Callable[[], io.BufferedIOBase]) -> io.BufferedIOBase:
        reader = self._readers[path] = HashingReader(open_content())
        return reader

    def note(self, path: str, text: bytes | None) -> None:
        """Record the content of a file that was not read through this object."""
        self._readers.pop(path, None)
        self._links.pop(path, None)
        if text is not None:
            self._links[path] = OutputFile(size=len(text), sha256=hashlib.sha256(text).hexdigest())

    def written(self, written_paths: Set[str], changed: ChangedFiles) -> WrittenFiles:
        """Return the files for the record: all written ones if they are few, otherwise the changed ones.

        `written_paths` are those that the tool wrote, including files with unchanged content.
        """
        listed = written_paths if len(written_paths) <= MAX_LISTED_FILES else frozenset[str]()
        files = {}
        for path in listed | changed.files.keys():
            if (reader := self._readers.get(path)) is not None:
                files[path] = OutputFile(size=reader.size, sha256=reader.sha256)
            elif path in self._links:
                files[path] = self._links[path]
        return WrittenFiles(files, changed.removed)


def manifest(files: Mapping[str, OutputFile]) -> dict[str, Any]:
    """Return the number of files, their bytes, and the SHA-256 of the sorted lines `<sha256>  <path>`.

    The lines are those that `sha256sum FILE… | LC_ALL=C sort` prints.
    """
    lines = sorted(f"{file.sha256}  {path}\n" for path, file in files.items())
    digest = hashlib.sha256("".join(lines).encode())
    size = sum(file.size for file in files.values())
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def commit_message(run: Run, step: StepRun, written: WrittenFiles, versions: Mapping[str, str]) -> str:
    """Return the message of a snapshot's commit. `versions` are those of the programs used."""
    subject = f"[DATALAD RUNCMD] {run.pipeline}: {step.spec.name} on {run.node}"
    message = embed_record(subject, run_record(run, step, written, versions))
    return f"{message}\nMAO-Run: {run.id}\nMAO-Step: {step.spec.name}\n"


def run_record(run: Run, step: StepRun, written: WrittenFiles, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return DataLad's run record, with MAO's record of the step under `mao`."""
    log = {"bytes": step.log_bytes, "sha256": step.log_sha256}
    step_record: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run.id,
        "pipeline": run.pipeline,
        "node": run.node,
        "trigger": run.trigger,
        "retry_of": run.retry_of,
        "schedule": run.schedule,
        "scheduled_for": None if run.scheduled_for is None else format_time(run.scheduled_for),
        "created_at": format_time(run.created_at),
        "started_at": None if run.started_at is None else format_time(run.started_at),
        **_tool_facts(step),
        "attempt": step.attempt,
        "times": {str(phase): format_time(time) for phase, time in step.times.items()},
        "exit": None if step.exit is None else step.exit.model_dump(mode="json"),
        "log": None if step.log_bytes is None else {k: fact for k, fact in log.items() if fact is not None},
        **written.record(),
        "checks": [result.model_dump(mode="json", exclude_none=True) for result in step.checks] or None,
        "versions": {"mao": __version__, **versions, **({"engine": step.engine} if step.engine else {})},
    }
    return {
        "chain": [],
        "cmd": rerun_command(run, step),
        "exit": 0 if step.exit is None else step.exit.code,
        "extra_inputs": [],
        "inputs": [],
        "outputs": ["."],
        "pwd": ".",
        "mao": {key: value for key, value in step_record.items() if value is not None},
    }


def _tool_facts(step: StepRun) -> dict[str, Any]:
    """Return the tool's part of the record, which everybody with access to the dataset can read.

    Variables are recorded by name, and with their values only for a step with `record_env`; secrets always by
    name. Values that look like secrets are masked.
    """
    spec = step.spec
    return {
        "step": spec.name,
        "tool": spec.tool,
        "image": spec.image.model_dump(mode="json"),
        "command": None if spec.command is None else mask_command(spec.command),
        "env": mask_env(spec.env) if spec.record_env else sorted(spec.env),
        "secrets": [ref.model_dump(mode="json", exclude_none=True) for ref in spec.secrets] or None,
        "limits": spec.limits.model_dump(mode="json", exclude_none=True),
        "network": spec.network,
        "privileges": spec.privileges.model_dump(mode="json", exclude_defaults=True) or None,
        "user": step.user,
        "output": {"dataset": spec.output.name, "branch": spec.output.branch, "base": step.base_commit},
        "input": None
        if spec.input is None
        else {"dataset": spec.input.name, "branch": spec.input.branch, "commit": step.input_commit},
    }


def rerun_command(run: Run, step: StepRun) -> str:
    """Return a shell command that repeats the step in a checkout of its dataset; DataLad fills in {pwd}.

    It runs as the calling user. An input dataset has to be checked out beside it as `../input`, at the commit
    in the record. Variables whose values are not recorded are taken from the caller's environment, and files
    with secrets from the folder $MAO_SECRETS.
    """
    spec = step.spec
    arguments = ["docker run --rm", '--user "$(id -u):$(id -g)"', f'-v "{{pwd}}:{TOOL_DATA}"']
    if spec.input is not None:
        arguments.append(f'-v "{{pwd}}/../input:{TOOL_INPUT}:ro"')
    if spec.network != "bridge":
        arguments.append(f"--network {spec.network}")
    for name, value in mask_env(tool_env(run, step)).items():
        is_recorded = MASK not in value and (name not in spec.env or spec.record_env)
        arguments.append(f"-e {_literal(f'{name}={value}' if is_recorded else name)}")
    for ref in spec.secrets:
        mount = f'-v "$MAO_SECRETS/{ref.secret}:{ref.target}:ro"'
        arguments.append(mount if ref.env is None else f"-e {ref.env}")
    return " ".join([*arguments, spec.image.pinned, *map(_literal, mask_command(spec.command or []))])


def _literal(word: str) -> str:
    """Quote a word for a shell and double its braces: single ones are DataLad's placeholders."""
    return shlex.quote(word).replace("{", "{{").replace("}", "}}")


def is_snapshot_of(message: str, run_id: str, step: str) -> bool:
    """True if a commit message is the one of this step of this run."""
    return trailers(message) == {"MAO-Run": run_id, "MAO-Step": step}
