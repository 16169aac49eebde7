"""Who refers to what, and why a delete and a new reference cannot both win.

    pipeline ─► tools, datasets                      federation store
    enrolment ─► pipeline, its tools and datasets    node store
    schedule, active run ─► enrolment                node store
    dataset.nodes ─► dataset                         what other nodes' enrolments leave in sight

Each store has one guard key (`keys.references`, `keys.node_references`) and two rules:

* Who **makes** a reference does so in one transaction that checks the revision of every record it refers
  to and rewrites the guard.
* Who **deletes** a record reads the guard, *then* looks for references, then deletes in one transaction
  that checks the record's revision and the guard's.

If the reference comes first, the guard has moved and the delete looks again and finds it. If the delete
comes first, the revision that the reference was decided on is gone and its maker decides anew.

An enrolment and its pipeline may lie in two etcds. Then the enrolment is written first and confirmed by a
transaction in the federation store that makes the reference by the same rule; when the pipeline is gone by
then, the enrolment is taken back (`enrolments.py`). Enrolments of other nodes do not hold a pipeline: they
are self-contained copies and run on without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from mao_shared import keys
from mao_shared.errors import StillReferenced, StoreUnknown
from mao_shared.models import Enrolment, Pipeline, Run, Schedule
from mao_shared.states import RUN_ENDED
from mao_shared.store import Check, Delete, Put, Records, Store

from .repositories import Repositories
from .writes import retry_lost_races

RUNS_PAGE = 500
# In the order in which references have to be taken away.
_NEXT = {
    "run": "maoctl run cancel {}",
    "schedule": "maoctl job remove {}",
    "enrolment": "maoctl pipeline withdraw {}",
    "pipeline": "maoctl pipeline remove {}",
    "node": "maoctl node remove {}",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A record that refers to another: `kind` is one of `_NEXT`."""

    kind: str
    name: str

    @property
    def next(self) -> str:
        """The command that takes the reference away."""
        return _NEXT[self.kind].format(self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Find = Callable[[str], Awaitable[list[Reference]]]
"""Name of a record → who refers to it."""


def still_referenced(noun: str, name: str, references: Iterable[Reference]) -> StillReferenced:
    """The refusal to delete: lists who refers and names the command that takes the first of them away."""
    order = list(_NEXT)
    found = sorted(set(references), key=lambda item: (order.index(item.kind), item.name))
    shown = ", ".join(map(str, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return StillReferenced(
        f"The {noun} {name!r} is still used by {shown}.",
        next=found[0].next,
        references=[{"kind": item.kind, "name": item.name} for item in found],
    )


def touch(guard: str) -> Put:
    """The write by which a new reference makes itself known to deletes."""
    return Put(guard, b"")


async def _guard(store: Store, key: str) -> Check:
    entry = await store.get(key)
    return Check(key, entry.revision if entry else 0)


async def federation_guard(store: Store) -> Check:
    """For a decision that rests on what all records say: it fails when any reference was made meanwhile."""
    return await _guard(store, keys.references())


async def delete_unreferenced(
    store: Store, guard: str, noun: str, name: str, find: Find, read: Callable[[], Awaitable[Check]]
) -> None:
    """Deletes the record whose key and revision `read` gives, unless `find` finds who refers to it.

    Raises StillReferenced, and whatever `read` raises when the record is gone or not the one expected.
    """

    async def attempt() -> bool | None:
        guarded = await _guard(store, guard)
        record = await read()
        if references := await find(name):
            raise still_referenced(noun, name, references)
        return await _delete(store, [record, guarded], record.key)

    await retry_lost_races(attempt, f"the {noun} {name!r}")


async def _delete(store: Store, checks: list[Check], key: str) -> bool | None:
    try:
        return await store.transact(checks, [Delete(key)]) is not None or None
    except StoreUnknown:
        if await store.get(key) is None:
            return True
        raise


class References:
    """Finds references by listing; deletes are rare and the lists short."""

    def __init__(self, shelf: Repositories) -> None:
        self.shelf = shelf

    async def to_tool(self, name: str) -> list[Reference]:
        """Pipelines with a step of this tool, and this node's enrolments resolved from it."""
        pipelines = list((await self.shelf.pipelines.by_name()).values())
        enrolments = [item.record for item in await self.shelf.enrolments.all()]
        return _pipelines_with(pipelines, name, tools_of) + _enrolments_with(enrolments, name, enrolled_tools)

    async def to_dataset(self, name: str) -> list[Reference]:
        """Pipelines and this node's enrolments that use it, and other nodes that have a branch in it."""
        pipelines = list((await self.shelf.pipelines.by_name()).values())
        enrolments = [item.record for item in await self.shelf.enrolments.all()]
        stored = await self.shelf.datasets.find(name)
        others = [node for node in stored.record.nodes if node != self.shelf.node] if stored else []
        return (
            _pipelines_with(pipelines, name, datasets_of)
            + _enrolments_with(enrolments, name, enrolled_datasets)
            + [Reference("node", node) for node in others]
        )

    async def to_pipeline(self, name: str) -> list[Reference]:
        """This node's enrolment and the schedules and active runs that live from it."""
        enrolments = self.shelf.enrolments
        there = await enrolments.store.get(enrolments.prefix + name)
        own = [Reference("enrolment", name)] if there else []
        return own + await self.to_enrolment(name)

    async def to_enrolment(self, name: str) -> list[Reference]:
        """Schedules of the pipeline on this node and its runs that have not ended."""
        schedules = [item.record for item in await self.shelf.schedules.all()]
        return _schedules_of(schedules, name) + [
            Reference("run", run.id) for run in await _active_runs(self.shelf.runs, name)
        ]


def tools_of(pipeline: Pipeline) -> set[str]:
    return {step.tool for step in pipeline.steps}


def datasets_of(pipeline: Pipeline) -> set[str]:
    """Names of the datasets that the pipeline writes or reads."""
    return {name for step in pipeline.steps for name in (step.dataset, step.input_dataset) if name}


def outputs_of(pipeline: Pipeline) -> set[str]:
    """Names of the datasets that the pipeline writes."""
    return {step.dataset for step in pipeline.steps}


def enrolled_tools(enrolment: Enrolment) -> set[str]:
    return {step.tool for step in enrolment.steps}


def enrolled_datasets(enrolment: Enrolment) -> set[str]:
    return {ref.name for step in enrolment.steps for ref in (step.output, step.input) if ref}


def enrolled_outputs(enrolment: Enrolment) -> set[str]:
    return enrolment.outputs


def _pipelines_with(
    pipelines: list[Pipeline], name: str, names: Callable[[Pipeline], set[str]]
) -> list[Reference]:
    return [Reference("pipeline", pipeline.name) for pipeline in pipelines if name in names(pipeline)]


def _enrolments_with(
    enrolments: list[Enrolment], name: str, names: Callable[[Enrolment], set[str]]
) -> list[Reference]:
    return [Reference("enrolment", item.pipeline) for item in enrolments if name in names(item)]


def _schedules_of(schedules: list[Schedule], pipeline: str) -> list[Reference]:
    return [Reference("schedule", item.id) for item in schedules if item.pipeline == pipeline]


async def _active_runs(runs: Records[Run], pipeline: str) -> list[Run]:
    active: list[Run] = []
    cursor = None
    while True:
        page = await runs.page(RUNS_PAGE, cursor)
        kept = [item.record for item in page.items if item.record.pipeline == pipeline]
        active += [run for run in kept if run.phase not in RUN_ENDED]
        cursor = page.cursor
        if cursor is None:
            return active
