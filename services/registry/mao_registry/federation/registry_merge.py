"""Merging a node's registry with a federation's: name clashes, and copying of records.

Pure: what a node's records and a federation's have in common, before they become one registry.

The registry's records on their way from one store to another.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from mao_registry.records.catalogue import Catalogue
from mao_registry.records.endorsements import Endorser
from mao_registry.records.references import References, datasets_of, tools_of
from mao_registry.records.repositories import Repositories
from mao_registry.records.rules import DatasetRules, PipelineRules, ToolRules, with_node
from mao_registry.records.writes import mirror_prefix, put_value, update_record
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import AlreadyExists, Conflict
from mao_shared.federation.replica import Replica
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Enrolment, Named, Pipeline, Schedule, Tool
from mao_shared.models.common import STORED
from mao_shared.store import Entry, Records, Store


@dataclass(frozen=True)
class RegistryContents:
    """The records of one registry, in the order in which they may be written: none refers to a later one."""

    tools: Sequence[Tool] = ()
    datasets: Sequence[Dataset] = ()
    pipelines: Sequence[Pipeline] = ()


@dataclass(frozen=True, slots=True)
class NameClash:
    """A record of this node that cannot become one of the federation."""

    kind: RegistryKind
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind[:-1]} {self.name}: {self.why}"


def find_clashes(ours: RegistryContents, theirs: RegistryContents) -> list[NameClash]:
    """All clashes, in the order of kinds and names; who takes part in a dataset is no difference."""
    return [
        *_different("tools", ours.tools, theirs.tools),
        *_different("datasets", _bare(ours.datasets), _bare(theirs.datasets)),
        *_same_external(ours.datasets, theirs.datasets),
        *_different("pipelines", ours.pipelines, theirs.pipelines),
    ]


def find_new_records(ours: RegistryContents, theirs: RegistryContents) -> list[str]:
    """What of ours the federation does not have, as `tool NAME`."""
    return [
        f"{noun} {name}"
        for noun, mine, others in (
            ("tool", ours.tools, theirs.tools),
            ("dataset", ours.datasets, theirs.datasets),
            ("pipeline", ours.pipelines, theirs.pipelines),
        )
        for name in sorted({each.name for each in mine} - {each.name for each in others})
    ]


def removal_commands(
    clashes: Sequence[NameClash], ours: RegistryContents, enrolled: Container[str], jobs: Iterable[Schedule]
) -> list[str]:
    """The commands that take the clashing records off this node, in an order in which none is refused."""
    names = {
        kind: {each.name for each in clashes if each.kind == kind}
        for kind in ("tools", "datasets", "pipelines")
    }
    pipelines = sorted(
        each.name
        for each in ours.pipelines
        if each.name in names["pipelines"]
        or tools_of(each) & names["tools"]
        or datasets_of(each) & names["datasets"]
    )
    return [
        *(f"maoctl job remove {job.id} --yes" for job in jobs if job.pipeline in pipelines),
        *(f"maoctl pipeline withdraw {name} --yes" for name in pipelines if name in enrolled),
        *(f"maoctl pipeline remove {name} --yes" for name in pipelines),
        *(f"maoctl tool remove {name} --yes" for name in sorted(names["tools"])),
        *(f"maoctl dataset remove {name} --yes" for name in sorted(names["datasets"])),
    ]


def refuse_clashes(clashes: Sequence[NameClash], federation: str, commands: Sequence[str] = ()) -> None:
    """Raises Conflict (`names-clash`) that lists all of them. `commands`: see `clearing`."""
    if not clashes:
        return
    shown = "; ".join(map(str, clashes[:10])) + (f"; and {len(clashes) - 10} more" if clashes[10:] else "")
    noun = clashes[0].kind[:-1]
    commands = commands or [f"maoctl {each.kind[:-1]} remove {each.name} --yes" for each in clashes]
    count = "One record" if len(clashes) == 1 else f"{len(clashes)} records"
    verb = "clashes" if len(clashes) == 1 else "clash"
    raise Conflict(
        f"{count} of this node {verb} with the federation {federation!r}: {shown}. Nothing was written.",
        code="names-clash",
        next=f"Take them off this node: {' && '.join(commands)} ; then join again. The federation's own can"
        f" be seen there with 'maoctl {noun} show {clashes[0].name}'.",
        clashes=[{"kind": each.kind, "name": each.name, "why": each.why} for each in clashes],
    )


def _different(kind: RegistryKind, ours: Sequence[Named], theirs: Sequence[Named]) -> list[NameClash]:
    known = {record.name: record for record in theirs}
    return [
        NameClash(
            kind, record.name, f"the federation has another one (they differ in {_fields(record, other)})"
        )
        for record in sorted(ours, key=lambda each: each.name)
        if (other := known.get(record.name)) is not None and other != record
    ]


def _fields(one: Named, other: Named) -> str:
    mine, yours = one.model_dump(), other.model_dump()
    return ", ".join(field for field in mine if mine[field] != yours.get(field))


def _bare(datasets: Sequence[Dataset]) -> list[Dataset]:
    return [dataset.model_copy(update={"nodes": []}) for dataset in datasets]


def _same_external(ours: Sequence[Dataset], theirs: Sequence[Dataset]) -> list[NameClash]:
    """A key from outside goes to one dataset in the whole federation."""
    owners = {key: dataset.name for dataset in theirs for key in dataset.external}
    return [
        NameClash(
            "datasets", dataset.name, f"its external key {key!r} belongs to the dataset {owners[key]!r} there"
        )
        for dataset in sorted(ours, key=lambda each: each.name)
        for key in dataset.external
        if owners.get(key, dataset.name) != dataset.name
    ]


KINDS: tuple[RegistryKind, ...] = ("tools", "datasets", "pipelines")


async def read_contents(store: Store) -> RegistryContents:
    """The registry's records in a store; what cannot be read (any member may write it) is left out."""
    tools = await Records(store, keys.registry_prefix("tools"), Tool).by_name()
    datasets = await Records(store, keys.registry_prefix("datasets"), Dataset).by_name()
    pipelines = await Records(store, keys.registry_prefix("pipelines"), Pipeline).by_name()
    return RegistryContents([*tools.values()], [*datasets.values()], [*pipelines.values()])


async def copy_registry(source: Store, target: Store) -> dict[str, int]:
    """Makes the registry of `target` that of `source`; key → revision of what was in `source`."""
    entries = [
        entry for kind in KINDS for entry in await mirror_prefix(source, target, keys.registry_prefix(kind))
    ]
    return {entry.key: entry.revision for entry in entries}


async def registry_entries(store: Store) -> list[Entry]:
    return [entry for kind in KINDS for entry in (await store.list(keys.registry_prefix(kind))).entries]


async def copy_own_records(own: Store, federation: Store, node: str) -> None:
    """What the node has said of itself: its signing keys, endorsements, briefs of its runs."""
    signer = await own.get(keys.signer(node))
    if signer is not None:
        await put_value(federation, keys.signer(node), signer.value)
    for topic in ("endorsements", "runs"):
        await mirror_prefix(own, federation, f"{keys.peer_root(node)}{topic}/")


async def add_registry(own: Store, federation: Store, node: str, name: str, clock: Clock) -> None:
    """Adds the node's records to those of a federation, and the node to the datasets it takes part in.

    What others have added meanwhile under the same name raises Conflict (`names-clash`); what was added by
    then is equal on both sides and does not clash when this is repeated.
    """
    ours = await read_contents(own)
    shelf = Repositories(node, federation, own)
    references, endorser = References(shelf), Endorser(node, clock)
    await _add(Catalogue(shelf.tools, ToolRules(references), endorser), ours.tools, name)
    bare = [
        dataset.model_copy(update={"nodes": [node] if node in dataset.nodes else []})
        for dataset in ours.datasets
    ]
    await _add_datasets(Catalogue(shelf.datasets, DatasetRules(references), endorser), bare, node, name)
    await _add(Catalogue(shelf.pipelines, PipelineRules(references, shelf), endorser), ours.pipelines, name)


async def _add(catalogue: Catalogue[Tool] | Catalogue[Pipeline], records: Iterable[Named], name: str) -> None:
    for record in records:
        try:
            await catalogue.create(record, mine=True)  # type: ignore[arg-type]  # the caller pairs them
        except AlreadyExists:
            _lost(catalogue.rules.noun, record.name, name)


async def _add_datasets(
    catalogue: Catalogue[Dataset], datasets: Iterable[Dataset], node: str, name: str
) -> None:
    for dataset in datasets:
        try:
            await catalogue.create(dataset, mine=True)
        except AlreadyExists:
            there = (await catalogue.read(dataset.name)).record
            if there.model_copy(update={"nodes": dataset.nodes}) != dataset:
                _lost("dataset", dataset.name, name)
            if dataset.nodes:
                await update_record(catalogue.records, dataset.name, lambda now: now and with_node(now, node))


def _lost(noun: str, record: str, federation: str) -> None:
    kind: RegistryKind = "tools" if noun == "tool" else "datasets" if noun == "dataset" else "pipelines"
    refuse_clashes([NameClash(kind, record, "another node has just registered it otherwise")], federation)


async def renumber_enrolments(before: Store | Replica, after: Store, own: Store, node: str) -> None:
    """Lets the node's enrolments refer to the revisions of the store that now holds their pipelines.

    An enrolment that was behind its pipeline stays so.
    """
    enrolments = Records(own, keys.enrolments_prefix(node), Enrolment)
    prefix = keys.registry_prefix("pipelines")
    for stored in await enrolments.all():
        name = stored.record.pipeline
        was, now = await before.get(prefix + name), await after.get(prefix + name)
        if was is None or now is None or was.revision != stored.record.pipeline_revision:
            continue
        same = _read(was) is not None and _read(was) == _read(now)
        revision = now.revision if same else 0
        await update_record(
            enrolments,
            name,
            lambda old, revision=revision: old and old.model_copy(update={"pipeline_revision": revision}),  # type: ignore[misc]
        )


def _read(pipeline: Entry) -> Pipeline | None:
    """None for what cannot be read."""
    try:
        return Pipeline.model_validate_json(pipeline.value, context=STORED)
    except ValidationError:
        return None
