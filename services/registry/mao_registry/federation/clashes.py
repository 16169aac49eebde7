"""Pure: what a node's records and a federation's have in common, before they become one registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mao_shared.errors import Conflict
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Named, Pipeline, Tool


@dataclass(frozen=True)
class Holdings:
    """The records of one registry, in the order in which they may be written: none refers to a later one."""

    tools: Sequence[Tool] = ()
    datasets: Sequence[Dataset] = ()
    pipelines: Sequence[Pipeline] = ()


@dataclass(frozen=True, slots=True)
class Clash:
    """A record of this node that cannot become one of the federation."""

    kind: RegistryKind
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind[:-1]} {self.name}: {self.why}"


def find_clashes(ours: Holdings, theirs: Holdings) -> list[Clash]:
    """All clashes, in the order of kinds and names; who takes part in a dataset is no difference."""
    return [
        *_different("tools", ours.tools, theirs.tools),
        *_different("datasets", _bare(ours.datasets), _bare(theirs.datasets)),
        *_same_external(ours.datasets, theirs.datasets),
        *_different("pipelines", ours.pipelines, theirs.pipelines),
    ]


def refuse_clashes(clashes: Sequence[Clash], federation: str) -> None:
    """Raises Conflict (`names-clash`) that lists all of them."""
    if not clashes:
        return
    shown = "; ".join(map(str, clashes[:10])) + (f"; and {len(clashes) - 10} more" if clashes[10:] else "")
    noun = clashes[0].kind[:-1]
    count = "One record" if len(clashes) == 1 else f"{len(clashes)} records"
    verb = "clashes" if len(clashes) == 1 else "clash"
    raise Conflict(
        f"{count} of this node {verb} with the federation {federation!r}: {shown}. Nothing was written.",
        code="names-clash",
        next=f"Rename or remove them on this node, such as with 'maoctl {noun} remove {clashes[0].name}', and"
        " join again; the federation's own can be seen there with 'maoctl "
        f"{noun} show {clashes[0].name}'.",
        clashes=[{"kind": each.kind, "name": each.name, "why": each.why} for each in clashes],
    )


def _different(kind: RegistryKind, ours: Sequence[Named], theirs: Sequence[Named]) -> list[Clash]:
    known = {record.name: record for record in theirs}
    return [
        Clash(kind, record.name, f"the federation has another one (they differ in {_fields(record, other)})")
        for record in sorted(ours, key=lambda each: each.name)
        if (other := known.get(record.name)) is not None and other != record
    ]


def _fields(one: Named, other: Named) -> str:
    mine, yours = one.model_dump(), other.model_dump()
    return ", ".join(field for field in mine if mine[field] != yours.get(field))


def _bare(datasets: Sequence[Dataset]) -> list[Dataset]:
    return [dataset.model_copy(update={"nodes": []}) for dataset in datasets]


def _same_external(ours: Sequence[Dataset], theirs: Sequence[Dataset]) -> list[Clash]:
    """A key from outside goes to one dataset in the whole federation."""
    owners = {key: dataset.name for dataset in theirs for key in dataset.external}
    return [
        Clash(
            "datasets", dataset.name, f"its external key {key!r} belongs to the dataset {owners[key]!r} there"
        )
        for dataset in sorted(ours, key=lambda each: each.name)
        for key in dataset.external
        if owners.get(key, dataset.name) != dataset.name
    ]
