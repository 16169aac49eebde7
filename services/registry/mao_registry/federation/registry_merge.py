"""Merging a node's registry with a federation's: name clashes, and copying records between stores."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from mao_registry.records.collection import Collection
from mao_registry.records.endorsements import Endorser, registry_kind
from mao_registry.records.references import References, pipeline_datasets, pipeline_tools
from mao_registry.records.rules import DatasetRules, PipelineRules, ToolRules, with_node
from mao_registry.records.stores import Repositories, mirror_prefix, put_value
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import AlreadyExists, Conflict
from mao_shared.federation.replica import Replica
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Enrolment, Named, Pipeline, Schedule, Tool
from mao_shared.models.common import STORED
from mao_shared.store import Entry, Records, Store

R = TypeVar("R", bound=Named)
KINDS: tuple[RegistryKind, ...] = ("tools", "datasets", "pipelines")
"""In the order in which records have to be written: none refers to a later kind."""


@dataclass(frozen=True)
class RegistryContents:
    """The records of one registry."""

    tools: Sequence[Tool] = ()
    datasets: Sequence[Dataset] = ()
    pipelines: Sequence[Pipeline] = ()

    def by_kind(self) -> Mapping[RegistryKind, Sequence[Named]]:
        return {"tools": self.tools, "datasets": self.datasets, "pipelines": self.pipelines}


@dataclass(frozen=True, slots=True)
class NameClash:
    """A record of this node that cannot be added to the federation."""

    kind: RegistryKind
    name: str
    why: str

    @property
    def noun(self) -> str:
        return self.kind[:-1]

    def __str__(self) -> str:
        return f"{self.noun} {self.name}: {self.why}"


def find_clashes(own: RegistryContents, federation: RegistryContents) -> list[NameClash]:
    """Return all clashes by kind and name; the `nodes` of datasets are ignored. Pure."""
    return [
        *_different("tools", own.tools, federation.tools),
        *_different("datasets", _without_nodes(own.datasets), _without_nodes(federation.datasets)),
        *_same_external_keys(own.datasets, federation.datasets),
        *_different("pipelines", own.pipelines, federation.pipelines),
    ]


def _different(kind: RegistryKind, own: Sequence[Named], federation: Sequence[Named]) -> list[NameClash]:
    known = {record.name: record.model_dump() for record in federation}
    clashes = []
    for record in _sorted(own):
        values, others = record.model_dump(), known.get(record.name)
        if others is not None and others != values:
            fields = ", ".join(field for field in values if values[field] != others.get(field))
            why = f"the federation has another one (they differ in {fields})"
            clashes.append(NameClash(kind, record.name, why))
    return clashes


def _without_nodes(datasets: Sequence[Dataset]) -> list[Dataset]:
    return [dataset.model_copy(update={"nodes": []}) for dataset in datasets]


def _same_external_keys(own: Sequence[Dataset], federation: Sequence[Dataset]) -> list[NameClash]:
    """Return clashes of external keys that belong to another dataset in the federation."""
    owners = {key: dataset.name for dataset in federation for key in dataset.external}
    return [
        NameClash(
            "datasets", dataset.name, f"its external key {key!r} belongs to the dataset {owners[key]!r} there"
        )
        for dataset in _sorted(own)
        for key in dataset.external
        if owners.get(key, dataset.name) != dataset.name
    ]


def _sorted(records: Iterable[Any]) -> list[Any]:
    return sorted(records, key=lambda record: record.name)


def find_new_records(own: RegistryContents, federation: RegistryContents) -> list[str]:
    """Return the records that the federation does not have yet, as `tool NAME`. Pure."""
    known = federation.by_kind()
    return [
        f"{kind[:-1]} {name}"
        for kind, records in own.by_kind().items()
        for name in sorted({record.name for record in records} - {record.name for record in known[kind]})
    ]


def removal_commands(
    clashes: Sequence[NameClash], own: RegistryContents, enrolled: Container[str], jobs: Iterable[Schedule]
) -> list[str]:
    """Return commands that remove the clashing records from this node, in the necessary order."""
    names = {kind: {clash.name for clash in clashes if clash.kind == kind} for kind in KINDS}
    pipelines = sorted(
        pipeline.name
        for pipeline in own.pipelines
        if pipeline.name in names["pipelines"]
        or pipeline_tools(pipeline) & names["tools"]
        or pipeline_datasets(pipeline) & names["datasets"]
    )
    return [
        *(f"maoctl job remove {job.id} --yes" for job in jobs if job.pipeline in pipelines),
        *(f"maoctl pipeline withdraw {name} --yes" for name in pipelines if name in enrolled),
        *(f"maoctl pipeline remove {name} --yes" for name in pipelines),
        *(f"maoctl tool remove {name} --yes" for name in sorted(names["tools"])),
        *(f"maoctl dataset remove {name} --yes" for name in sorted(names["datasets"])),
    ]


def refuse_clashes(clashes: Sequence[NameClash], federation: str, commands: Sequence[str] = ()) -> None:
    """Raise Conflict (`names-clash`) that lists all clashes. `commands`: see `removal_commands`."""
    if not clashes:
        return
    shown = "; ".join(map(str, clashes[:10])) + (f"; and {len(clashes) - 10} more" if clashes[10:] else "")
    commands = commands or [f"maoctl {clash.noun} remove {clash.name} --yes" for clash in clashes]
    count = "One record" if len(clashes) == 1 else f"{len(clashes)} records"
    verb = "clashes" if len(clashes) == 1 else "clash"
    raise Conflict(
        f"{count} of this node {verb} with the federation {federation!r}: {shown}. Nothing was written.",
        code="names-clash",
        next=f"Remove them from this node: {' && '.join(commands)} ; then join again. See the federation's"
        f" record on another node: 'maoctl {clashes[0].noun} show {clashes[0].name}'.",
        clashes=[{"kind": clash.kind, "name": clash.name, "why": clash.why} for clash in clashes],
    )


async def read_contents(store: Store) -> RegistryContents:
    """Read the registry's records in a store, except unreadable ones."""
    tools = await Records(store, keys.registry_prefix("tools"), Tool).by_name()
    datasets = await Records(store, keys.registry_prefix("datasets"), Dataset).by_name()
    pipelines = await Records(store, keys.registry_prefix("pipelines"), Pipeline).by_name()
    return RegistryContents([*tools.values()], [*datasets.values()], [*pipelines.values()])


async def copy_registry(source: Store, target: Store) -> dict[str, int]:
    """Copy the registry of `source` to `target`; return key → revision in `source`."""
    copied = {}
    for kind in KINDS:
        for entry in await mirror_prefix(source, target, keys.registry_prefix(kind)):
            copied[entry.key] = entry.revision
    return copied


async def registry_entries(store: Store) -> list[Entry]:
    return [entry for kind in KINDS for entry in (await store.list(keys.registry_prefix(kind))).entries]


async def copy_own_records(own: Store, federation: Store, node: str) -> None:
    """Copy the records that the node publishes: its signing keys, endorsements and summaries of its runs."""
    signer = await own.get(keys.signer(node))
    if signer is not None:
        await put_value(federation, keys.signer(node), signer.value)
    for topic in ("endorsements", "runs"):
        await mirror_prefix(own, federation, f"{keys.peer_root(node)}{topic}/")


async def add_registry(own: Store, federation: Store, node: str, name: str, clock: Clock) -> None:
    """Add the node's records to the federation `name`, and the node to its datasets. Idempotent.

    Raises Conflict (`names-clash`) if others have added records of the same names meanwhile.
    """
    contents = await read_contents(own)
    repositories = Repositories(node, federation, own)
    references, endorser = References(repositories), Endorser(node, clock)
    tools = Collection(repositories.tools, ToolRules(references), endorser)
    datasets = Collection(repositories.datasets, DatasetRules(references), endorser)
    pipelines = Collection(repositories.pipelines, PipelineRules(references), endorser)
    for tool in contents.tools:
        await _add(tools, tool, name)
    for dataset in contents.datasets:
        await _add_dataset(datasets, dataset, node, name)
    for pipeline in contents.pipelines:
        await _add(pipelines, pipeline, name)


async def _add(collection: Collection[R], record: R, federation: str) -> None:
    try:
        await collection.create(record, name_was_free=True)
    except AlreadyExists:
        _refuse_new_clash(registry_kind(record), record.name, federation)


async def _add_dataset(collection: Collection[Dataset], dataset: Dataset, node: str, federation: str) -> None:
    dataset = dataset.model_copy(update={"nodes": [node] if node in dataset.nodes else []})
    try:
        await collection.create(dataset, name_was_free=True)
    except AlreadyExists:
        registered = (await collection.read(dataset.name)).record
        if registered.model_copy(update={"nodes": dataset.nodes}) != dataset:
            _refuse_new_clash("datasets", dataset.name, federation)
        if dataset.nodes:
            await collection.records.update(dataset.name, lambda current: with_node(current, node))


def _refuse_new_clash(kind: RegistryKind, record: str, federation: str) -> None:
    refuse_clashes([NameClash(kind, record, "another node has just registered a different one")], federation)


async def renumber_enrolments(before: Store | Replica, after: Store, own: Store, node: str) -> None:
    """Update the pipeline revisions in enrolments after pipelines were copied from `before` to `after`.

    An enrolment that was outdated stays outdated.
    """
    enrolments = Records(own, keys.enrolments_prefix(node), Enrolment)
    for enrolment in [stored.record for stored in await enrolments.all()]:
        key = keys.registry_prefix("pipelines") + enrolment.pipeline
        old, new = await before.get(key), await after.get(key)
        if old is None or new is None or old.revision != enrolment.pipeline_revision:
            continue
        pipeline = _read_pipeline(old)
        unchanged = pipeline is not None and pipeline == _read_pipeline(new)

        def renumber(current: Enrolment, revision: int = new.revision if unchanged else 0) -> Enrolment:
            return current.model_copy(update={"pipeline_revision": revision})

        await enrolments.update(enrolment.pipeline, renumber)


def _read_pipeline(entry: Entry) -> Pipeline | None:
    """Parse a pipeline; None if it is unreadable."""
    try:
        return Pipeline.model_validate_json(entry.value, context=STORED)
    except ValidationError:
        return None
