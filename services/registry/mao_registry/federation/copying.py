"""The registry's records on their way from one store to another."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from mao_registry.records.catalogue import Catalogue
from mao_registry.records.datasets import DatasetRules, with_node
from mao_registry.records.endorsements import Endorser
from mao_registry.records.federation_writes import edit, ensure, mirror
from mao_registry.records.pipelines import PipelineRules
from mao_registry.records.references import References
from mao_registry.records.repositories import Shelf
from mao_registry.records.rules import ToolRules
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import AlreadyExists
from mao_shared.federation.replica import Copies
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Enrolment, Named, Pipeline, Tool
from mao_shared.models.common import STORED
from mao_shared.store import Entry, Records, Store

from .registry_merge import Clash, Holdings, refuse_clashes

KINDS: tuple[RegistryKind, ...] = ("tools", "datasets", "pipelines")


async def holdings(store: Store) -> Holdings:
    """The registry's records in a store; what cannot be read (any member may write it) is left out."""
    tools = await Records(store, keys.registry_prefix("tools"), Tool).by_name()
    datasets = await Records(store, keys.registry_prefix("datasets"), Dataset).by_name()
    pipelines = await Records(store, keys.registry_prefix("pipelines"), Pipeline).by_name()
    return Holdings([*tools.values()], [*datasets.values()], [*pipelines.values()])


async def copy_registry(source: Store, target: Store) -> dict[str, int]:
    """Makes the registry of `target` that of `source`; key → revision of what was in `source`."""
    entries = [entry for kind in KINDS for entry in await mirror(source, target, keys.registry_prefix(kind))]
    return {entry.key: entry.revision for entry in entries}


async def registry_entries(store: Store) -> list[Entry]:
    return [entry for kind in KINDS for entry in (await store.list(keys.registry_prefix(kind))).entries]


async def copy_said(own: Store, federation: Store, node: str) -> None:
    """What the node has said of itself: its signing keys, endorsements, briefs of its runs."""
    signer = await own.get(keys.signer(node))
    if signer is not None:
        await ensure(federation, keys.signer(node), signer.value)
    for topic in ("endorsements", "runs"):
        await mirror(own, federation, f"{keys.peer_root(node)}{topic}/")


async def add_registry(own: Store, federation: Store, node: str, name: str, clock: Clock) -> None:
    """Adds the node's records to those of a federation, and the node to the datasets it takes part in.

    What others have added meanwhile under the same name raises Conflict (`names-clash`); what was added by
    then is equal on both sides and does not clash when this is repeated.
    """
    ours = await holdings(own)
    shelf = Shelf(node, federation, own)
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
                await edit(catalogue.records, dataset.name, lambda now: now and with_node(now, node))


def _lost(noun: str, record: str, federation: str) -> None:
    kind: RegistryKind = "tools" if noun == "tool" else "datasets" if noun == "dataset" else "pipelines"
    refuse_clashes([Clash(kind, record, "another node has just registered it otherwise")], federation)


async def renumber_enrolments(before: Store | Copies, after: Store, own: Store, node: str) -> None:
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
        await edit(
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
