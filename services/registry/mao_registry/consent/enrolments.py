"""Enrolments: this node takes part in a pipeline, renews its enrolment, or withdraws.

The order of the writes, each of which may be the last before a crash; repeating the command completes it:

    enrol      1 pipeline (if new), and this node in the `nodes` of its output datasets, one transaction; the
                 list is for people to see, who votes is decided by datamgmt (docs/decisions/0015)
               2 the operator's agreement, a file that the runner obeys (mao_shared/agreements.py): an
                 enrolment that may not run would be worse than an agreement to what is not enrolled
               3 the enrolment, which needs the revision of the first; if both stores are one, the same
                 transaction makes the reference to the pipeline
               4 with a separate federation store: the reference, or the enrolment is withdrawn
    withdraw   1 this node out of the `nodes` of datasets that no other enrolment writes
               2 the enrolment
               3 the agreement: nothing of the pipeline runs any more

A node's enrolments are written by its registry alone, one at a time (`_lock`); against other writers the
guards of `records/references.py` hold. Images are resolved and datasets prepared before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mao_registry.node_services import NodeServices
from mao_registry.records.endorsements import Endorser
from mao_registry.records.references import (
    References,
    delete_unreferenced,
    pipeline_outputs,
    still_referenced,
    touch_guard,
)
from mao_registry.records.rules import (
    ReferencedRecords,
    not_found,
    read_references,
    reference_conditions,
    title_clash,
    with_node,
    without_node,
)
from mao_registry.records.stores import Repositories, unknown_as_lost, write_record
from mao_shared import keys
from mao_shared.agreements import Agreement
from mao_shared.clock import Clock
from mao_shared.errors import AlreadyExists, NotFound, RecordUnreadable, StillReferenced
from mao_shared.models import Dataset, Enrolment, EnrolmentRequest, Pipeline, PipelineInit, ResolvedImage
from mao_shared.models.common import carry_unknown_fields
from mao_shared.models.pipeline import Pull
from mao_shared.store import Check, Put, Records, Stored, Write, retry_lost
from mao_shared.store.records import StoredPage, dump
from mao_shared.web.dependencies import check_if_match

from .agreements import Agreements
from .definition import check_agreed, enrol_command, image_pins, record_digests, resolve_steps


@dataclass(frozen=True)
class Proposal:
    """The records that an enrolment would be made from.

    `before` is what etcd holds; only the `agreement` of the operator is trusted.
    """

    pipeline: Pipeline
    referenced: ReferencedRecords
    before: Stored[Enrolment] | None
    agreement: Agreement | None

    @property
    def enrolled(self) -> Enrolment | None:
        """The enrolment that runs here; None if there is none, or it was not agreed to."""
        agreed = self.before and self.agreement and self.agreement.covers(self.before.record)
        return self.before.record if self.before and agreed else None

    @property
    def granted(self) -> set[tuple[str, str]]:
        """The tool and privilege of everything granted so far."""
        return self.agreement.granted if self.agreement else set()


async def by_operator(_: Proposal) -> str:
    """Approve as the operator, who has enrolled this node."""
    return "operator"


@dataclass(frozen=True)
class Terms:
    """The terms on which a node enrols.

    Args:
        agree: the privileges that the operator grants.
        keep_pins: images whose reference is unchanged stay pinned as they are.
        approve: returns who has approved, or raises; called before anything is pulled or cloned.
        command: to repeat with more privileges; empty: the command of an enrolment.
    """

    agree: Sequence[str] = ()
    pull: Pull = "missing"
    keep_pins: bool = False
    approve: Callable[[Proposal], Awaitable[str]] = by_operator
    command: str = ""


class Enrolments:
    """This node's enrolments. Outages raise Unavailable; refusals of other services pass through."""

    def __init__(
        self,
        repositories: Repositories,
        agreements: Agreements,
        references: References,
        services: NodeServices,
        endorser: Endorser,
        clock: Clock,
    ) -> None:
        self.repositories = repositories
        self.agreements = agreements
        self.references = references
        self.services = services
        self.endorser = endorser
        self.clock = clock
        self._lock = asyncio.Lock()

    @property
    def records(self) -> Records[Enrolment]:
        return self.repositories.enrolments

    async def read(self, pipeline: str) -> Stored[Enrolment]:
        """Return the enrolment. Raises NotFound (`not-enrolled`)."""
        stored = await self.records.get(pipeline)
        if stored is None:
            raise self._not_enrolled(pipeline)
        return stored

    async def exists(self, pipeline: str) -> bool:
        return await self.records.store.get(self.records.prefix + pipeline) is not None

    async def page(self, limit: int, cursor: str | None) -> StoredPage[Enrolment]:
        return await self.records.page(limit, cursor)

    async def init(self, wanted: PipelineInit, *, name_was_free: bool = False) -> Stored[Pipeline]:
        """Register the pipeline if it is new and enrol this node; checks everything before writing anything.

        A pipeline that is registered as wanted but not enrolled here is enrolled: that is how another node
        joins, and how an interrupted command is completed. `name_was_free`: this node was not enrolled when
        the command was first sent, so an existing enrolment is the command's own.

        Raises AlreadyExists, InvalidInput (`unknown-tool`, `unknown-dataset`, `agreement-needed`, or a
        service's own, such as `image-not-found`).
        """
        pipeline = wanted.pipeline()
        terms = Terms(agree=wanted.agree, pull=wanted.pull)

        async def attempt() -> Stored[Pipeline] | None:
            stored = await self.repositories.pipelines.get(pipeline.name)
            if stored is not None and (clash := title_clash(pipeline, stored.record)):
                raise clash
            if stored is not None and not same_definition(stored.record, pipeline):
                await read_references(pipeline, self.repositories)  # whose error is the better answer
                raise AlreadyExists(
                    f"The pipeline {pipeline.name!r} already exists, with other steps.",
                    next=f"See it with 'maoctl pipeline get {pipeline.name}'; take part in it with"
                    f" 'maoctl pipeline enrol {pipeline.name}', or choose another name.",
                )
            if await self.records.get(pipeline.name):
                if name_was_free and stored is not None:
                    return stored
                raise AlreadyExists(
                    f"The pipeline {pipeline.name!r} is already registered, and this node is enrolled in it.",
                    next=f"Run it with 'maoctl pipeline run {pipeline.name}'; update its images with"
                    f" 'maoctl pipeline enrol {pipeline.name}'.",
                )
            enrolled = await self._enrol(stored or Stored(pipeline, 0), None, terms)
            return enrolled and enrolled[0]

        return await retry_lost(attempt, f"the pipeline {pipeline.name!r}", unknown_is_lost=False)

    async def renew(
        self, name: str, request: EnrolmentRequest, if_match: int | None
    ) -> tuple[Stored[Enrolment], bool]:
        """Enrol in a registered pipeline, or renew tools, limits and images; returns whether it is new.

        Raises NotFound, PreconditionFailed, and InvalidInput as `init` does.
        """
        return await self.renew_on(name, Terms(agree=request.agree, pull=request.pull), if_match)

    async def renew_on(self, name: str, terms: Terms, if_match: int | None) -> tuple[Stored[Enrolment], bool]:
        """Enrol or renew on the given terms; also raises what their `approve` raises."""

        async def attempt() -> tuple[Stored[Enrolment], bool] | None:
            pipeline = await self.repositories.pipelines.get(name)
            if pipeline is None:
                raise not_found("pipeline", name)
            before = await self.records.get(name)
            check_if_match(if_match, before.revision if before else 0)
            enrolled = await self._enrol(pipeline, before, terms)
            return enrolled and (enrolled[1], before is None)

        return await retry_lost(attempt, f"the enrolment in {name!r}", unknown_is_lost=False)

    async def withdraw(self, name: str, if_match: int | None) -> None:
        """Withdraw this node from a pipeline.

        Raises NotFound, PreconditionFailed, StillReferenced (by a schedule or an active run).
        """
        async with self._lock:
            if not await self.exists(name) and await self.agreements.withdraw(name):
                return  # completes the same command after a crash
            check = await self._check(name, if_match)
            enrolment = await self.records.find(name)
            if references := await self.references.to_enrolment(name):
                raise still_referenced("enrolment", name, references)
            if enrolment is not None:  # else its datasets are unknown
                others = [stored.record for stored in await self.records.all()]
                kept = [other.outputs for other in others if other.pipeline != enrolment.record.pipeline]
                for dataset in sorted(enrolment.record.outputs.difference(*kept)):
                    await self._change_dataset(dataset, without_node)
            try:
                await delete_unreferenced(
                    self.repositories.own,
                    keys.node_references(self.repositories.node),
                    "enrolment",
                    name,
                    self.references.to_enrolment,
                    lambda: self._check(name, if_match),
                )
            except StillReferenced:  # a schedule was made meanwhile
                for dataset in sorted(enrolment.record.outputs) if enrolment else ():
                    await self._change_dataset(dataset, with_node)
                raise
            await self.agreements.withdraw(name)
            self.records.note_absent(check.key)

    async def _check(self, name: str, if_match: int | None) -> Check:
        """Return a check of the enrolment's revision, even of an unreadable one."""
        entry = await self.records.store.get(self.records.prefix + name)
        if entry is None:
            raise self._not_enrolled(name)
        check_if_match(if_match, entry.revision)
        return Check(entry.key, entry.revision)

    def _not_enrolled(self, name: str) -> NotFound:
        return NotFound(
            f"The node {self.repositories.node!r} is not enrolled in a pipeline {name!r}.",
            code="not-enrolled",
            next=f"Enrol it with 'maoctl pipeline enrol {name}'.",
        )

    async def _enrol(
        self, pipeline: Stored[Pipeline], before: Stored[Enrolment] | None, terms: Terms
    ) -> tuple[Stored[Pipeline], Stored[Enrolment]] | None:
        """Enrol; returns None for a lost race. `pipeline` has the revision 0 if it is not registered yet."""
        referenced = await read_references(pipeline.record, self.repositories)
        agreement = await self.agreements.of(pipeline.record.name)
        proposal = Proposal(pipeline.record, referenced, before, agreement)
        approved_by = await terms.approve(proposal)
        agreed = check_agreed(
            [stored.record for stored in referenced.tools.values()],
            terms.agree,
            proposal.granted,
            terms.command or enrol_command(pipeline.record, registered=pipeline.revision != 0),
            pipeline.record.steps,
        )
        pins = image_pins(proposal.enrolled) if terms.keep_pins else {}
        enrolment = await self._resolve(pipeline.record, referenced, agreed, terms.pull, pins)
        async with self._lock:
            registered = await self._write_shared(pipeline, referenced)
            if registered is None:
                return None
            facts = {"pipeline_revision": registered.revision, "approved_by": approved_by}
            enrolment = enrolment.model_copy(update=facts)
            if before is not None:  # but not of the steps: nobody can agree to fields that are unknown here
                enrolment = carry_unknown_fields(before.record.model_copy(update={"steps": []}), enrolment)
            await self.agreements.agree(enrolment)
            written = await self._write_own(enrolment, before, registered)
            if written is None:
                return None
            if not self.repositories.one_store:
                await self._confirm(written, is_new=before is None)
            return registered, written

    async def _resolve(
        self,
        pipeline: Pipeline,
        referenced: ReferencedRecords,
        agreed: list[str],
        pull: Pull,
        pins: Mapping[str, ResolvedImage],
    ) -> Enrolment:
        """Pin images and prepare datasets; returns the enrolment without its pipeline's revision.

        Raises the refusals of other services.
        """
        tools = {name: stored.record for name, stored in referenced.tools.items()}
        datasets = {name: stored.record for name, stored in referenced.datasets.items()}
        images = {}
        for image in sorted({tool.image for tool in tools.values()}):
            images[image] = pins.get(image) or await self.services.resolve_image(image, pull)
        for dataset in datasets.values():
            await self.services.prepare_dataset(dataset)
        return Enrolment(
            pipeline=pipeline.name,
            title=pipeline.title,
            node=self.repositories.node,
            steps=resolve_steps(pipeline, tools, datasets, images, self.repositories.node),
            overlap=pipeline.overlap,
            agreed=agreed,
            pipeline_revision=0,
            enrolled_at=self.clock.now(),
            records=record_digests([pipeline, *tools.values(), *datasets.values()]),
        )

    async def _write_shared(
        self, pipeline: Stored[Pipeline], referenced: ReferencedRecords
    ) -> Stored[Pipeline] | None:
        """Write 1 of an enrolment. Returns None for a lost race."""
        key = self.repositories.pipelines.prefix + pipeline.record.name
        checks = [Check(key, pipeline.revision), *reference_conditions(referenced, self.repositories)]
        writes: list[Write] = [touch_guard(keys.references())]
        if pipeline.revision == 0:
            writes += [Put(key, dump(pipeline.record)), self.endorser.put(pipeline.record)]
        for name in sorted(pipeline_outputs(pipeline.record)):
            dataset = referenced.datasets[name].record
            joined = with_node(dataset, self.repositories.node)
            if joined is not dataset:
                writes.append(Put(self.repositories.datasets.prefix + name, dump(joined)))
        revision = await unknown_as_lost(self.repositories.federation.transact(checks, writes))
        return None if revision is None else Stored(pipeline.record, pipeline.revision or revision)

    async def _write_own(
        self, enrolment: Enrolment, before: Stored[Enrolment] | None, pipeline: Stored[Pipeline]
    ) -> Stored[Enrolment] | None:
        """Write 3 of an enrolment. Returns None for a lost race."""
        name = enrolment.pipeline
        key = self.records.prefix + name
        checks = [Check(key, before.revision if before else 0)]
        writes = [Put(key, dump(enrolment))]
        if self.repositories.one_store:
            checks.append(Check(self.repositories.pipelines.prefix + name, pipeline.revision))
            writes.append(touch_guard(keys.references()))
        revision = await write_record(self.records, name, enrolment, checks, writes)
        return None if revision is None else Stored(enrolment, revision)

    async def _confirm(self, enrolment: Stored[Enrolment], *, is_new: bool) -> None:
        """Write 4 of an enrolment, after which no delete of the pipeline can miss it."""
        name = enrolment.record.pipeline

        async def attempt() -> int | None:
            pipeline = await self.repositories.pipelines.get(name)
            if pipeline is None:
                if is_new:
                    await self.records.delete(name, enrolment.revision)
                    await self.agreements.withdraw(name)
                raise not_found("pipeline", name)
            check = Check(self.repositories.pipelines.prefix + name, pipeline.revision)
            return await self.repositories.federation.transact([check], [touch_guard(keys.references())])

        await retry_lost(attempt, f"the pipeline {name!r}")

    async def _change_dataset(self, name: str, change: Callable[[Dataset, str], Dataset]) -> None:
        with suppress(RecordUnreadable):  # what a member has made unreadable holds up nobody
            await self.repositories.datasets.update(
                name, lambda dataset: change(dataset, self.repositories.node)
            )


def same_definition(pipeline: Pipeline, other: Pipeline) -> bool:
    """True if two pipelines differ at most in their description."""
    return pipeline.steps == other.steps and pipeline.overlap == other.overlap
