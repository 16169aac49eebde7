"""Exports a run as an RO-Crate: gathers its files, then writes them to a zip in one pass. Blocking."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import mao_git
from mao_datamgmt.browse.archive import ZipSink
from mao_datamgmt.context import Context
from mao_datamgmt.digests import ContentDigest, content_digest
from mao_datamgmt.settings import About
from mao_git import Clone, ContentStream
from mao_shared.logs import MASK, mask_command, mask_env
from mao_shared.models import Run, format_time

from .crate import METADATA, CrateFile, CrateRun, CrateStep, Entity, describe
from .steps import (
    StepEvidence,
    find_steps,
    log_path,
    open_content,
    open_dataset,
    open_local_file,
    written_paths,
)

DOCUMENT = "run.json"


@dataclass(frozen=True)
class CrateItem:
    """A file of the crate. With `in_git`, the content is a git blob, whose id is also its SWHID."""

    path: str
    open: Callable[[], ContentStream]
    in_git: bool = True


@dataclass(frozen=True)
class StepFiles:
    """The files of a step that go into the crate."""

    step: StepEvidence
    tree: str | None
    inputs: list[CrateItem]
    outputs: list[CrateItem]
    log: CrateItem | None

    def items(self) -> list[CrateItem]:
        return [*self.inputs, *self.outputs, *([self.log] if self.log is not None else [])]


@dataclass(frozen=True)
class Export:
    """A run and the files of its crate."""

    run_id: str
    pipeline: str
    node: str
    made_at: str
    about: About
    steps: list[StepFiles]
    document: CrateItem | None

    def items(self) -> list[CrateItem]:
        own = [self.document] if self.document is not None else []
        return [*own, *(item for step in self.steps for item in step.items())]


def gather(context: Context, run_id: str, run: Run | None, about: About, *, data: bool = True) -> Export:
    """Find the files of the crate; without `data`, only records and logs.

    Raises the errors of `find_steps`, and InvalidInput for a path that a crate cannot contain.
    """
    steps: list[StepFiles] = []
    for step in find_steps(context, run_id, run):
        folder = f"{step.index}-{step.name}"
        inputs: list[CrateItem] = []
        outputs: list[CrateItem] = []
        tree = None
        log = log_path(context, run_id, step)
        if step.input is not None and data:
            clone = open_dataset(context, step.input[0])
            commit = clone.resolve(step.input[1])
            inputs = _items(context, clone, commit, sorted(clone.list_paths(commit)), f"{folder}/input")
        if step.commit is not None:
            clone = open_dataset(context, step.dataset)
            tree = clone.tree(step.commit)
            paths = written_paths(clone, step) if data else []
            outputs = _items(context, clone, step.commit, paths, f"{folder}/output")
        log_item = (
            None
            if log is None
            else CrateItem(f"{folder}/log.txt", partial(open_local_file, log), in_git=False)
        )
        steps.append(StepFiles(step, tree, inputs, outputs, log_item))
    document = b"" if run is None else run_document(run)
    return Export(
        run_id,
        steps[0].step.record["pipeline"],
        steps[0].step.record["node"],
        format_time(context.clock.now()),
        about,
        steps,
        None
        if run is None
        else CrateItem(DOCUMENT, lambda: ContentStream(len(document), iter((document,))), in_git=False),
    )


def run_document(run: Run) -> bytes:
    """Return a run's document as JSON, with values as in its commits (`provenance`)."""
    document = run.model_dump(mode="json", exclude_none=True)
    for step, dumped in zip(run.steps, document["steps"], strict=True):
        env = step.spec.env
        dumped["spec"]["env"] = mask_env(env) if step.spec.record_env else dict.fromkeys(sorted(env), MASK)
        if step.spec.command is not None:
            dumped["spec"]["command"] = mask_command(step.spec.command)
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _items(context: Context, clone: Clone, commit: str, paths: list[str], folder: str) -> list[CrateItem]:
    # Each file opens its own clone: a clone is bound to a thread, and several read a stream's pieces.
    name = clone.path.stem
    for path in paths:
        if fault := mao_git.paths.path_fault(path):
            raise mao_git.paths.unsafe_name(path, f"cannot go into a crate: {fault}")
    return [CrateItem(f"{folder}/{path}", partial(_open, context, name, commit, path)) for path in paths]


def _open(context: Context, dataset: str, commit: str, path: str) -> ContentStream:
    return open_content(context, open_dataset(context, dataset), commit, path)


def pack(export: Export) -> Iterator[bytes]:
    """Yield the crate as a zip file, the metadata last. Raises OSError if content is broken."""
    sink = ZipSink()
    files_by_path: dict[str, CrateFile] = {}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in export.items():
            stream = item.open()
            digest = ContentDigest(stream.size)
            with archive.open(item.path, "w", force_zip64=True) as file:
                for piece in digest.read(stream.pieces):
                    file.write(piece)
                    yield sink.take()
            files_by_path[item.path] = _crate_file(item, digest)
        archive.writestr(METADATA, json.dumps(describe(_crate_run(export, files_by_path)), indent=2))
    yield sink.take()


def metadata(export: Export) -> Entity:
    """Return only the crate's metadata. All content is read for its digests."""
    files_by_path = {}
    for item in export.items():
        stream = item.open()
        files_by_path[item.path] = _crate_file(item, content_digest(stream.size, stream.pieces))
    return describe(_crate_run(export, files_by_path))


def _crate_file(item: CrateItem, digest: ContentDigest) -> CrateFile:
    swhid = f"swh:1:cnt:{digest.blob}" if item.in_git else None
    return CrateFile(item.path, digest.size, digest.sha256, swhid)


def _crate_run(export: Export, files_by_path: dict[str, CrateFile]) -> CrateRun:
    steps = [
        CrateStep(
            record=files.step.record,
            succeeded=files.step.succeeded,
            ended_at=files.step.ended_at,
            error=files.step.error,
            commit=files.step.commit,
            tree=files.tree,
            inputs=[files_by_path[item.path] for item in files.inputs],
            outputs=[files_by_path[item.path] for item in files.outputs],
            log=None if files.log is None else files_by_path[files.log.path],
        )
        for files in export.steps
    ]
    return CrateRun(
        id=export.run_id,
        pipeline=export.pipeline,
        node=export.node,
        published=export.made_at,
        about=export.about,
        steps=steps,
        document=None if export.document is None else files_by_path[export.document.path],
    )
