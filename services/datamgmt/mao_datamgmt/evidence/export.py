"""A run as an RO-Crate: gathered first, then written as a zip while everything is read once. Blocking."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import mao_git
from mao_datamgmt.browse.archive import ZipSink
from mao_datamgmt.context import Context
from mao_datamgmt.settings import About
from mao_git import Clone, ContentStream
from mao_shared.logs import mask_command, mask_env
from mao_shared.models import Run, format_time

from .crate import METADATA, CrateFile, CrateRun, CrateStep, Entity, describe
from .steps import (
    ContentDigest,
    StepEvidence,
    content_digest,
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
    """A file of the crate. `in_git`: it has an id there, which is its SWHID as well."""

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
    """A run that is ready to be written."""

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
    """What goes into the crate; without `data` only records and logs. Raises what `find_steps` raises."""
    steps = find_steps(context, run_id, run)
    first = steps[0].record
    document = b"" if run is None else run_document(run)
    return Export(
        run_id,
        first["pipeline"],
        first["node"],
        format_time(context.clock.now()),
        about,
        [_step_files(context, run_id, step, data) for step in steps],
        None
        if run is None
        else CrateItem(DOCUMENT, lambda: ContentStream(len(document), iter((document,))), in_git=False),
    )


def run_document(run: Run) -> bytes:
    """The run's document with what looks like a secret masked."""
    document = run.model_dump(mode="json", exclude_none=True)
    for step, dumped in zip(run.steps, document["steps"], strict=True):
        dumped["spec"]["env"] = mask_env(step.spec.env)
        if step.spec.command is not None:
            dumped["spec"]["command"] = mask_command(step.spec.command)
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _step_files(context: Context, run_id: str, step: StepEvidence, data: bool) -> StepFiles:
    folder = f"{step.index}-{step.name}"
    log = log_path(context, run_id, step)
    inputs: list[CrateItem] = []
    outputs: list[CrateItem] = []
    tree = None
    if step.input is not None and data:
        clone = open_dataset(context, step.input[0])
        commit = clone.resolve(step.input[1])
        inputs = _items(context, clone, commit, sorted(clone.list_paths(commit)), f"{folder}/input")
    if step.commit is not None:
        clone = open_dataset(context, step.dataset)
        tree = clone.tree(step.commit)
        paths = written_paths(clone, step) if data else []
        outputs = _items(context, clone, step.commit, paths, f"{folder}/output")
    return StepFiles(
        step,
        tree,
        inputs,
        outputs,
        None if log is None else CrateItem(f"{folder}/log.txt", partial(open_local_file, log), in_git=False),
    )


def _items(context: Context, clone: Clone, commit: str, paths: list[str], folder: str) -> list[CrateItem]:
    # A clone stays in the thread that opened it, and a stream's pieces are read by several.
    name = clone.path.stem
    for path in paths:
        if fault := mao_git.paths.path_fault(path):
            raise mao_git.paths.unsafe_name(path, f"cannot go into a crate: {fault}")
    return [CrateItem(f"{folder}/{path}", partial(_open, context, name, commit, path)) for path in paths]


def _open(context: Context, dataset: str, commit: str, path: str) -> ContentStream:
    return open_content(context, open_dataset(context, dataset), commit, path)


def pack(export: Export) -> Iterator[bytes]:
    """The crate as a zip file in pieces, its metadata last. Raises OSError for content that is broken."""
    sink = ZipSink()
    made: dict[str, CrateFile] = {}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in export.items():
            opened = item.open()
            measured = ContentDigest(opened.size)
            with archive.open(item.path, "w", force_zip64=True) as file:
                for piece in measured.read(opened.pieces):
                    file.write(piece)
                    yield sink.take()
            made[item.path] = _crate_file(item, measured)
        archive.writestr(METADATA, json.dumps(describe(_crate_run(export, made)), indent=2))
    yield sink.take()


def metadata(export: Export) -> Entity:
    """The crate's metadata alone; reads everything for it."""
    made = {}
    for item in export.items():
        opened = item.open()
        made[item.path] = _crate_file(item, content_digest(opened.size, opened.pieces))
    return describe(_crate_run(export, made))


def _crate_file(item: CrateItem, measured: ContentDigest) -> CrateFile:
    swhid = f"swh:1:cnt:{measured.blob}" if item.in_git else None
    return CrateFile(item.path, measured.size, measured.sha256, swhid)


def _crate_run(export: Export, made: dict[str, CrateFile]) -> CrateRun:
    return CrateRun(
        id=export.run_id,
        pipeline=export.pipeline,
        node=export.node,
        published=export.made_at,
        about=export.about,
        steps=[_crate_step(step, made) for step in export.steps],
        document=None if export.document is None else made[export.document.path],
    )


def _crate_step(gathered: StepFiles, made: dict[str, CrateFile]) -> CrateStep:
    step = gathered.step
    return CrateStep(
        record=step.record,
        succeeded=step.succeeded,
        ended_at=step.ended_at,
        error=step.error,
        commit=step.commit,
        tree=gathered.tree,
        inputs=[made[item.path] for item in gathered.inputs],
        outputs=[made[item.path] for item in gathered.outputs],
        log=None if gathered.log is None else made[gathered.log.path],
    )
