"""Checks a run's snapshots, logs and document against its record, byte by byte. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mao_datamgmt.context import Context
from mao_datamgmt.digests import content_digest
from mao_datamgmt.provenance import manifest
from mao_git import Clone, LfsPointer, RepositoryError, blob_hash
from mao_shared.errors import MaoError
from mao_shared.models import OutputFile, Run
from mao_shared.models.run import Mismatch, Verification

from .steps import (
    StepEvidence,
    find_steps,
    log_path,
    open_content,
    open_dataset,
    open_local_file,
    written_paths,
)

MAX_LISTED = 100  # mismatches


@dataclass
class _Totals:
    files: int = 0
    bytes: int = 0
    unchecked: list[str] = field(default_factory=list)


def verify_evidence(context: Context, run_id: str, run: Run | None) -> Verification:
    """Verify all steps of a run; list at most `MAX_LISTED` mismatches. Raises the errors of `find_steps`."""
    totals = _Totals()

    def mismatches() -> Iterator[Mismatch]:
        for step in find_steps(context, run_id, run):
            yield from _record_faults(run_id, step)
            if step.commit is not None:
                clone = open_dataset(context, step.dataset)
                try:
                    yield from _snapshot_faults(context, clone, step, step.commit, totals)
                except (RepositoryError, OSError) as error:
                    yield Mismatch(step=step.name, what="snapshot", detail=f"The clone is broken: {error}")
            yield from _log_faults(context, run_id, step, totals)

    faults: list[Mismatch] = []
    for mismatch in mismatches():  # all are iterated, so that the totals are complete
        if len(faults) < MAX_LISTED:
            faults.append(mismatch)
    return Verification(
        run=run_id,
        ok=not faults,
        files=totals.files,
        bytes=totals.bytes,
        faults=faults,
        unchecked=totals.unchecked,
    )


def _record_faults(run_id: str, step: StepEvidence) -> Iterator[Mismatch]:
    """Yield the differences between the commit's record and the run's document."""
    pairs: list[tuple[str, object, object]] = [("run", step.record.get("run"), run_id)]
    if step.step is not None:
        found = step.step
        pairs.append(("image", step.record["image"]["pinned"], found.spec.image.pinned))
        recorded = (step.record.get("exit") or {}) if isinstance(step.record.get("exit"), dict) else {}
        if found.exit is not None and "code" in recorded:
            pairs.append(("exit code", recorded["code"], found.exit.code))
        log = step.record.get("log") or {}
        if found.log_sha256 is not None and "sha256" in log:
            pairs.append(("digest of the log", log["sha256"], found.log_sha256))
        if found.log_bytes is not None and "bytes" in log:
            pairs.append(("size of the log", log["bytes"], found.log_bytes))
    for fact, committed, stored in pairs:
        if committed != stored:
            detail = f"The {fact} is {stored!r} in the run's document and {committed!r} in its commit."
            yield Mismatch(step=step.name, what="record", detail=detail)


def _snapshot_faults(
    context: Context, clone: Clone, step: StepEvidence, commit: str, totals: _Totals
) -> Iterator[Mismatch]:
    outputs: dict[str, dict[str, object]] = step.record.get("outputs") or {}
    written = set(written_paths(clone, step))
    found: dict[str, OutputFile] = {}
    paths = sorted(clone.list_paths(commit))
    for path in paths:
        try:
            stream = open_content(context, clone, commit, path)
            measured = content_digest(stream.size, stream.pieces)
        except (MaoError, RepositoryError, OSError) as error:
            detail = f"It cannot be read: {error}"
            yield Mismatch(step=step.name, what=_entry_kind(path, written), path=path, detail=detail)
            continue
        totals.files += 1
        totals.bytes += measured.size
        if path in written:
            found[path] = OutputFile(size=measured.size, sha256=measured.sha256)
        recorded_file = outputs.get(path)
        difference = None
        if recorded_file is not None and recorded_file != {"size": measured.size, "sha256": measured.sha256}:
            difference = (
                f"It has {measured.size} bytes and SHA-256 {measured.sha256}; the record has "
                f"{recorded_file.get('size')} and {recorded_file.get('sha256')}."
            )
        else:
            # The commit contains the content itself or its LFS pointer.
            pointer = LfsPointer(measured.sha256, measured.size).text()
            pointer_hash = blob_hash(len(pointer))
            pointer_hash.update(pointer)
            blob_id = clone.blob_id(commit, path)
            if blob_id not in (measured.blob, pointer_hash.hexdigest()):
                difference = f"Its content has the id {measured.blob}; the commit has {blob_id}."
        if difference is not None:
            yield Mismatch(step=step.name, what=_entry_kind(path, written), path=path, detail=difference)
    for path in sorted(outputs.keys() - set(paths)):
        detail = "The record lists it, but the snapshot does not have it."
        yield Mismatch(step=step.name, what="output", path=path, detail=detail)
    recorded = step.record.get("manifest")
    if recorded is not None and manifest(found) != recorded:
        yield Mismatch(
            step=step.name,
            what="record",
            detail="The digest of the files differs from the record's manifest.",
        )


def _entry_kind(path: str, written: set[str]) -> str:
    return "output" if path in written else "snapshot"


def _log_faults(context: Context, run_id: str, step: StepEvidence, totals: _Totals) -> Iterator[Mismatch]:
    log = step.record.get("log") or {}
    if not log:
        return
    path = log_path(context, run_id, step)
    if path is None:
        totals.unchecked.append(f"log of {step.name}: it was removed from the node")
        return
    try:
        stream = open_local_file(path)
        measured = content_digest(stream.size, stream.pieces)
    except OSError as error:
        detail = f"It cannot be read: {error.strerror or error}"
        yield Mismatch(step=step.name, what="log", path=path.name, detail=detail)
        return
    totals.files += 1
    totals.bytes += measured.size
    if measured.size != log.get("bytes", measured.size):
        detail = f"It has {measured.size} bytes; the record has {log['bytes']}."
        yield Mismatch(step=step.name, what="log", path=path.name, detail=detail)
    if measured.sha256 != log.get("sha256", measured.sha256):
        detail = f"Its SHA-256 is {measured.sha256}; the record has {log['sha256']}."
        yield Mismatch(step=step.name, what="log", path=path.name, detail=detail)
