"""Pure: what a node's records and a federation's have in common, before they become one registry."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from mao_registry.records.references import datasets_of, tools_of
from mao_shared.errors import Conflict
from mao_shared.keys import RegistryKind
from mao_shared.models import Dataset, Named, Pipeline, Schedule, Tool


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


def find_news(ours: Holdings, theirs: Holdings) -> list[str]:
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


def clearing(
    clashes: Sequence[Clash], ours: Holdings, enrolled: Container[str], jobs: Iterable[Schedule]
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


def refuse_clashes(clashes: Sequence[Clash], federation: str, commands: Sequence[str] = ()) -> None:
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
