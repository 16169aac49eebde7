"""Enrolling this node in a pipeline, renewing the enrolment, and withdrawing it.

The writes, in order. A crash may come after each of them; repeating the command completes the rest:

    enrol      1 the pipeline (if new), and this node in the `nodes` of its output datasets, in one
                 transaction; `nodes` is for display, the voters are decided by datamgmt (docs/decisions/0015)
               2 the operator's agreement, a file that the runner obeys (mao_shared/agreements.py): an
                 enrolment that may not run would be worse than an agreement without an enrolment
               3 the enrolment, which contains the pipeline's revision; if both stores are the same, this
                 transaction also makes the reference to the pipeline
               4 with a separate federation store: the reference; if it fails, the enrolment is withdrawn
    withdraw   1 remove this node from the `nodes` of datasets that no other enrolment writes
               2 delete the enrolment
               3 delete the agreement: nothing of the pipeline runs any more

Only the node's registry writes its enrolments, one at a time (`_lock`); `records/references.py` describes the
guards against other writers. Images are resolved and datasets prepared before anything is written.
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
from mao_shared.models.tool import Pull
from mao_shared.store import Check, Put, Records, Stored, Write, retry_lost
from mao_shared.store.records import StoredPage, dump
from mao_shared.web.dependencies import check_if_match

from .agreements import Agreements
from .definition import check_agreed, enrol_command, image_pins, record_digests, resolve_steps


@dataclass(frozen=True)
class Proposal:
    """The records that an enrolment would be made from.

    `before` is the enrolment in etcd, which others may have written; only the operator's `agreement` is
    trusted.
    """

    pipeline: Pipeline
    referenced: ReferencedRecords
    before: Stored[Enrolment] | None
    agreement: Agreement | None

    @property
    def enrolled(self) -> Enrolment | None:
        """The enrolment that runs here; None without one or without the operator's agreement."""
        agreed = self.before and self.agreement and self.agreement.covers(self.before.record)
        return self.before.record if self.before and agreed else None

    @property
    def granted(self) -> set[tuple[str, str]]:
        """The (tool, privilege) pairs granted so far."""
        return self.agreement.granted if self.agreement else set()


async def approve_as_operator(_: Proposal) -> str:
    """Approve without a check: the operator has sent the command."""
    return "operator"


@dataclass(frozen=True)
class Terms:
    """The terms on which a node enrols.

    Args:
        agree: the privileges that the operator grants.
        keep_pins: keep the pinned digests of images whose reference is unchanged.
        approve: returns who has approved, or raises; called before anything is pulled or cloned.
        command: command to repeat with more privileges; defaults to the one that enrols the node.
    """

    agree: Sequence[str] = ()
    pull: Pull = "missing"
    keep_pins: bool = False
    approve: Callable[[Proposal], Awaitable[str]] = approve_as_operator
    command: str = ""


class Enrolments:
    """This node's enrolments. Outages raise Unavailable; errors of other services are passed on."""

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
        """Register the pipeline if it is new, and enrol this node. Everything is checked before any write.

        If the same pipeline is already registered, this only enrols: another node joins it in this way, and
        an interrupted command is completed. `name_was_free`: this node was not enrolled when the command was
        first sent, so an existing enrolment was written by an earlier attempt of the same command.

        Raises AlreadyExists, InvalidInput (`unknown-tool`, `unknown-dataset`, `agreement-needed`, or the
        error of another service, such as `image-not-found`).
        """
        pipeline = wanted.pipeline()
        terms = Terms(agree=wanted.agree, pull=wanted.pull)

        async def attempt() -> Stored[Pipeline] | None:
            stored = await self.repositories.pipelines.get(pipeline.name)
            if stored is not None and (clash := title_clash(pipeline, stored.record)):
                raise clash
            if stored is not None and not same_definition(stored.record, pipeline):
                await read_references(pipeline, self.repositories)  # raises the more useful error
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
        """Enrol in a registered pipeline, or renew the enrolment; return it and whether it is new.

        Raises NotFound, PreconditionFailed, and InvalidInput as `init` does.
        """
        return await self.renew_on(name, Terms(agree=request.agree, pull=request.pull), if_match)

    async def renew_on(self, name: str, terms: Terms, if_match: int | None) -> tuple[Stored[Enrolment], bool]:
        """Enrol or renew on the given terms. Also raises the errors of `terms.approve`."""

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
                return  # an earlier attempt has crashed before its last step
            check = await self._check(name, if_match)
            enrolment = await self.records.find(name)
            if references := await self.references.to_enrolment(name):
                raise still_referenced("enrolment", name, references)
            if enrolment is not None:  # else its datasets are unknown
                others = [stored.record for stored in await self.records.all()]
                in_use = [other.outputs for other in others if other.pipeline != enrolment.record.pipeline]
                for dataset in sorted(enrolment.record.outputs.difference(*in_use)):
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
        """Return a check of the enrolment's revision, even if it is unreadable."""
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
        """Enrol; return None for a lost race. `pipeline` has revision 0 if it is not registered yet."""
        referenced = await read_references(pipeline.record, self.repositories)
        agreement = await self.agreements.find(pipeline.record.name)
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
            if before is not None:  # except in steps: nobody can agree to fields unknown to this version
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
        """Pin images and prepare datasets; return the enrolment without its pipeline's revision.

        Raises the errors of the other services.
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
        """Do write 1 of an enrolment (see the module). Return None for a lost race."""
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
        """Do write 3 of an enrolment (see the module). Return None for a lost race."""
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
        """Do write 4 of an enrolment, after which no delete of the pipeline can overlook it."""
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
        with suppress(RecordUnreadable):  # another member may have written it, and must not block this node
            await self.repositories.datasets.update(
                name, lambda dataset: change(dataset, self.repositories.node)
            )


def same_definition(pipeline: Pipeline, other: Pipeline) -> bool:
    """True if two pipelines differ at most in their description."""
    return pipeline.steps == other.steps and pipeline.overlap == other.overlap
