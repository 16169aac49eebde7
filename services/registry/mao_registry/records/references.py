"""References between records, and the guard that keeps a delete and a new reference from both succeeding.

    pipeline ─► tools, datasets                      federation store
    enrolment ─► pipeline, its tools and datasets    node store
    schedule, active run ─► enrolment                node store
    dataset.nodes ─► dataset                         stands for the enrolments of other nodes

Each store has one guard key (`keys.references`, `keys.node_references`) and two rules:

* A reference is **made** in one transaction that checks the revision of every referenced record and rewrites
  the guard.
* A record is **deleted** in three steps: read the guard, *then* look for references, then delete in one
  transaction that checks the revisions of the record and of the guard.

If the reference comes first, the guard has changed: the delete is repeated and finds the reference. If the
delete comes first, the check of the record's revision fails, and the reference is not made.

An enrolment and its pipeline may be in two stores. Then the enrolment is written first and confirmed by a
transaction in the federation store that makes the reference by the same rule; if the pipeline has been
deleted by then, the enrolment is withdrawn (`consent/enrolments.py`). Enrolments of other nodes do not
prevent the deletion of a pipeline: they are self-contained copies, which continue to run without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from mao_shared.errors import StillReferenced, StoreUnknown
from mao_shared.models import Enrolment, Pipeline
from mao_shared.states import RUN_ENDED
from mao_shared.store import Check, Delete, Put, Store, retry_lost

from .stores import Repositories

_REMOVAL_COMMANDS = {  # in the order in which references have to be removed
    "run": "maoctl run cancel {}",
    "schedule": "maoctl job remove {}",
    "enrolment": "maoctl pipeline withdraw {}",
    "pipeline": "maoctl pipeline remove {}",
    "node": "maoctl node remove {}",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A record that refers to another; `kind` is a key of `_REMOVAL_COMMANDS`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


FindReferences = Callable[[str], Awaitable[list[Reference]]]
"""Returns the records that refer to the record with this name."""


def still_referenced(noun: str, name: str, references: Iterable[Reference]) -> StillReferenced:
    """Return the error that lists the references, with the command that removes the first of them."""
    order = list(_REMOVAL_COMMANDS)
    ordered = sorted(set(references), key=lambda reference: (order.index(reference.kind), reference.name))
    shown = ", ".join(map(str, ordered[:5])) + (f" and {len(ordered) - 5} more" if ordered[5:] else "")
    removal = _REMOVAL_COMMANDS[ordered[0].kind].format(ordered[0].name)
    return StillReferenced(
        f"The {noun} {name!r} is still used by {shown}.",
        next=f"Remove what uses it, beginning with: {removal}",
        references=[{"kind": reference.kind, "name": reference.name} for reference in ordered],
    )


def touch_guard(key: str) -> Put:
    """Return the write that makes a new reference visible to concurrent deletes."""
    return Put(key, b"")


async def read_guard(store: Store, key: str) -> Check:
    """Return a check that fails once a new reference is made."""
    entry = await store.get(key)
    return Check(key, entry.revision if entry else 0)


async def delete_unreferenced(
    store: Store, guard: str, noun: str, name: str, find: FindReferences, read: Callable[[], Awaitable[Check]]
) -> None:
    """Delete the record whose key and revision `read` returns, unless `find` returns references to it.

    Raises StillReferenced, and the errors of `read`, such as NotFound.
    """

    async def attempt() -> bool | None:
        guarded = await read_guard(store, guard)
        record = await read()
        if references := await find(name):
            raise still_referenced(noun, name, references)
        try:
            return await store.transact([record, guarded], [Delete(record.key)]) is not None or None
        except StoreUnknown:
            if await store.get(record.key) is None:
                return True
            raise

    await retry_lost(attempt, f"the {noun} {name!r}", unknown_is_lost=False)


class References:
    """Finds references by listing records, since deletes are rare and the lists are short."""

    def __init__(self, repositories: Repositories) -> None:
        self.repositories = repositories

    async def to_tool(self, name: str) -> list[Reference]:
        """Return the pipelines with a step of this tool, and this node's enrolments that use it."""
        return [
            Reference("pipeline", pipeline.name)
            for pipeline in await self._pipelines()
            if name in pipeline_tools(pipeline)
        ] + [
            Reference("enrolment", enrolment.pipeline)
            for enrolment in await self._enrolments()
            if any(step.tool == name for step in enrolment.steps)
        ]

    async def to_dataset(self, name: str) -> list[Reference]:
        """Return the pipelines and this node's enrolments that use the dataset, and its other nodes."""
        stored = await self.repositories.datasets.find(name)
        others = [node for node in stored.record.nodes if node != self.repositories.node] if stored else []
        return (
            [
                Reference("pipeline", pipeline.name)
                for pipeline in await self._pipelines()
                if name in pipeline_datasets(pipeline)
            ]
            + [
                Reference("enrolment", enrolment.pipeline)
                for enrolment in await self._enrolments()
                if any(
                    ref and ref.name == name for step in enrolment.steps for ref in (step.output, step.input)
                )
            ]
            + [Reference("node", node) for node in others]
        )

    async def to_pipeline(self, name: str) -> list[Reference]:
        """Return this node's enrolment, and the schedules and active runs that depend on it."""
        enrolments = self.repositories.enrolments
        entry = await enrolments.store.get(enrolments.prefix + name)
        own = [Reference("enrolment", name)] if entry else []
        return own + await self.to_enrolment(name)

    async def to_enrolment(self, pipeline: str) -> list[Reference]:
        """Return the pipeline's schedules on this node, and its runs that have not ended."""
        schedules = [stored.record for stored in await self.repositories.schedules.all()]
        runs = [stored.record async for stored in self.repositories.runs.iterate()]
        return [
            Reference("schedule", schedule.id) for schedule in schedules if schedule.pipeline == pipeline
        ] + [
            Reference("run", run.id)
            for run in runs
            if run.pipeline == pipeline and run.phase not in RUN_ENDED
        ]

    async def _pipelines(self) -> Iterable[Pipeline]:
        return (await self.repositories.pipelines.by_name()).values()

    async def _enrolments(self) -> list[Enrolment]:
        return [stored.record for stored in await self.repositories.enrolments.all()]


def pipeline_tools(pipeline: Pipeline) -> set[str]:
    return {step.tool for step in pipeline.steps}


def pipeline_datasets(pipeline: Pipeline) -> set[str]:
    """Return the names of the datasets that the pipeline writes or reads."""
    return {name for step in pipeline.steps for name in (step.dataset, step.input_dataset) if name}


def pipeline_outputs(pipeline: Pipeline) -> set[str]:
    """Return the names of the datasets that the pipeline writes."""
    return {step.dataset for step in pipeline.steps}
