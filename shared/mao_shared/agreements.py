"""Agreements: steps that the operator has agreed to run, in files that tools and etcd clients cannot reach.

Only the registry writes them, before the enrolment itself; the runner checks every step against them before
it creates a container (docs/decisions/0018-agreements-outside-etcd.md). Files in MAO_AGREEMENTS_DIR:

    <pipeline>.json    digests of the agreed steps: those of the enrolment, then earlier ones
    .trusted           the nodes whose operators' changes are accepted without approval
    .taken-over        marks that enrolments from before these files existed were imported

Earlier steps stay valid, since queued runs and `maoctl run reproduce` use them, but grant no privilege beyond
the current enrolment's. A withdrawn pipeline keeps its file, and none of its steps may run.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import MaoError
from .host.files import remove_access, replace_file, writable_by_others
from .models import Enrolment, ResolvedStep, Timestamp, is_name

MAX_AGREED_STEPS = 2000  # of one pipeline
MAX_FILE_BYTES = 8 << 20  # far more than MAX_AGREED_STEPS take
TRUSTED, TAKEN_OVER = ".trusted", ".taken-over"
_NOT_RUN = {"retry"}  # used by the scheduler only; a reproduction is not retried
UNUSABLE = "agreement-unusable"
M = TypeVar("M", bound=BaseModel)


class AgreedStep(BaseModel):
    """A step that the operator agreed to. `asked`: its privileges; `current`: in the current enrolment."""

    digest: str
    name: str
    tool: str
    asked: list[str] = []
    current: bool = False


class TrustedNodes(BaseModel):
    """Content of the file `.trusted`."""

    version: Literal[1] = 1
    nodes: list[str] = []


class Agreement(BaseModel):
    """The agreement to one pipeline. Unknown fields of newer versions are ignored, to allow a downgrade."""

    version: Literal[1] = 1
    node: str
    pipeline: str
    approved_by: str = "operator"
    agreed_at: Timestamp
    withdrawn: bool = False
    steps: list[AgreedStep] = []

    @property
    def granted(self) -> set[tuple[str, str]]:
        """The currently granted pairs of tool and privilege (as in `ResolvedStep.asked`)."""
        current = [] if self.withdrawn else [step for step in self.steps if step.current]
        return {(step.tool, word) for step in current for word in step.asked}

    def covers(self, enrolment: Enrolment) -> bool:
        """Return True if all steps of the enrolment may run."""
        node, pipeline = enrolment.node, enrolment.pipeline
        return all(refusal_reason(self, node, pipeline, step) is None for step in enrolment.steps)


def step_digest(node: str, pipeline: str, step: ResolvedStep) -> str:
    """Return the SHA-256 of everything that determines what runs, bound to the node and the pipeline.

    It is the same in every version of MAO that knows the fields, because defaults are omitted. A field's
    default must therefore never change without renaming the field.
    """
    fields = step.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_RUN)
    text = json.dumps([node, pipeline, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def refusal_reason(agreement: Agreement | None, node: str, pipeline: str, step: ResolvedStep) -> str | None:
    """Return why the step may not run; None if the operator agreed to it. Pure."""
    if agreement is None:
        return "the operator has not agreed to this pipeline"
    if (agreement.node, agreement.pipeline) != (node, pipeline):
        return f"its agreement is for pipeline {agreement.pipeline!r} on node {agreement.node!r}"
    if agreement.withdrawn:
        return "the node was withdrawn from this pipeline"
    digest = step_digest(node, pipeline, step)
    found = next((agreed for agreed in agreement.steps if agreed.digest == digest), None)
    if found is None:
        return "the operator has not agreed to this version of the step"
    lacking = [word for word in step.asked() if (step.tool, word) not in agreement.granted]
    if lacking:
        return f"the operator no longer agrees to {', '.join(lacking)}"
    return None


def make_agreement(
    enrolment: Enrolment,
    now: datetime,
    before: Agreement | None,
    earlier: Iterable[ResolvedStep] = (),
) -> Agreement:
    """Return the agreement: the enrolment's steps, followed by those agreed to earlier. Pure.

    `earlier`: steps of existing runs, newest first, for a node that has no agreements yet.
    """
    node, pipeline = enrolment.node, enrolment.pipeline
    steps: list[AgreedStep] = []
    for step in enrolment.steps:
        steps.append(_agreed(node, pipeline, step, current=True))
        if step.input is not None and step.on_late_truth == "own" and step.input.branch != node:
            # The data manager substitutes the node's own branch if the step's ground truth is late.
            own = step.input.model_copy(update={"branch": node})
            steps.append(_agreed(node, pipeline, step.model_copy(update={"input": own}), current=True))
    if before is not None and (before.node, before.pipeline) == (node, pipeline):
        steps += [agreed.model_copy(update={"current": False}) for agreed in before.steps]
    steps += [_agreed(node, pipeline, step, current=False) for step in earlier]
    first: dict[str, AgreedStep] = {}
    for agreed in steps:
        first.setdefault(agreed.digest, agreed)
    return Agreement(
        node=node,
        pipeline=pipeline,
        approved_by=enrolment.approved_by,
        agreed_at=now,
        steps=list(first.values())[:MAX_AGREED_STEPS],
    )


def _agreed(node: str, pipeline: str, step: ResolvedStep, *, current: bool) -> AgreedStep:
    digest = step_digest(node, pipeline, step)
    return AgreedStep(digest=digest, name=step.name, tool=step.tool, asked=step.asked(), current=current)


class AgreementFiles:
    """The files of a node's agreements. All methods block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, pipeline: str) -> Path:
        """Return the path of a pipeline's file; raises ValueError for an invalid pipeline name."""
        if not is_name(pipeline):
            raise ValueError(f"{pipeline!r} is not a pipeline name")
        return self.directory / f"{pipeline}.json"

    def close(self) -> None:
        """Remove other users' read access. Files that were writable for them stay rejected.

        Raises MaoError (`agreement-unusable`).
        """
        try:
            if self.directory.is_dir():
                for path in (self.directory, *self.directory.iterdir()):
                    if writable_by_others(path.lstat()) is None:
                        remove_access(path)
        except OSError as error:
            raise agreement_unusable(self.directory, error.strerror or "it cannot be read") from error

    def is_taken_over(self) -> bool:
        """Return True once existing enrolments were imported; later, no file means no agreement.

        Raises MaoError (`agreement-unusable`) if the folder cannot be read.
        """
        marker = self.directory / TAKEN_OVER
        try:
            marker.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise agreement_unusable(marker, error.strerror or "it cannot be read") from error
        return True

    def read(self, pipeline: str) -> Agreement | None:
        """Return the agreement, or None; raises MaoError (`agreement-unusable`) if it cannot be trusted."""
        return _read_model(self.path(pipeline), Agreement)

    def agree(self, enrolment: Enrolment, now: datetime) -> None:
        """Record the operator's consent to this enrolment; earlier consent stays valid if it can be read."""
        try:
            before = self.read(enrolment.pipeline)
        except MaoError:
            before = None  # a file that others could have written is replaced
        self._write(self.path(enrolment.pipeline), make_agreement(enrolment, now, before).model_dump_json())

    def withdraw(self, pipeline: str) -> bool:
        """Mark the pipeline as withdrawn, so that none of its steps may run; False if it already was."""
        path = self.path(pipeline)
        try:
            before = self.read(pipeline)
        except MaoError:
            return self._remove(path)
        if before is None or before.withdrawn:
            return False
        withdrawn = before.model_copy(update={"withdrawn": True})
        self._write(path, withdrawn.model_dump_json())
        return True

    def trusted(self) -> set[str]:
        """Return the names of the trusted nodes; raises MaoError (`agreement-unusable`)."""
        found = _read_model(self.directory / TRUSTED, TrustedNodes)
        return set(found.nodes) if found else set()

    def trust(self, nodes: Collection[str]) -> None:
        """Replace the set of trusted nodes."""
        self._write(self.directory / TRUSTED, TrustedNodes(nodes=sorted(nodes)).model_dump_json())

    def take_over(
        self,
        enrolments: Sequence[Enrolment],
        earlier: Mapping[str, Sequence[ResolvedStep]],
        trusted: Collection[str],
        now: datetime,
    ) -> None:
        """Import, once, the enrolments and trusted nodes from before these files existed.

        `earlier`: further steps of existing runs, by pipeline. Existing agreements are not changed.
        """
        if not (self.directory / TRUSTED).exists():
            self.trust(trusted)
        for enrolment in enrolments:
            path = self.path(enrolment.pipeline)
            if not path.exists():
                agreement = make_agreement(enrolment, now, None, earlier.get(enrolment.pipeline, ()))
                self._write(path, agreement.model_dump_json())
        marker: dict[str, Any] = {
            "at": now.isoformat(),
            "pipelines": [enrolment.pipeline for enrolment in enrolments],
        }
        self._write(self.directory / TAKEN_OVER, json.dumps(marker))

    def _remove(self, path: Path) -> bool:
        try:
            path.unlink()
        except OSError as error:
            raise agreement_unusable(path, error.strerror or "it cannot be removed") from error
        return True

    def _write(self, path: Path, text: str) -> None:
        try:
            replace_file(path, text.encode())
        except OSError as error:
            raise agreement_unusable(path, error.strerror or "it cannot be written") from error


def _read_model(path: Path, model: type[M]) -> M | None:
    """Read a file that only this user and root could have written; None if it does not exist."""
    try:
        if why := writable_by_others(path.parent.stat()):
            raise agreement_unusable(path.parent, why)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise agreement_unusable(path, "it is not a regular file")
            if why := writable_by_others(status):
                raise agreement_unusable(path, why)
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise agreement_unusable(path, error.strerror or "it cannot be read") from error
    if len(raw) > MAX_FILE_BYTES:
        raise agreement_unusable(path, f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise agreement_unusable(path, "it is damaged or of a later version") from error


def agreement_unusable(path: Path, why: str) -> MaoError:
    return MaoError(
        f"The operator's agreement {path} cannot be used: {why}.",
        code=UNUSABLE,
        next="The folder and its files must belong to the user that the node runs as (modes 0700 and 0600). "
        "A damaged file: remove it, then agree again with 'maoctl pipeline approve NAME'.",
    )
