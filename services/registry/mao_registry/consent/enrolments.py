"""Enrolments: this node takes part in a pipeline, renews that, or withdraws.

The order of the writes, each of which may be the last before a crash; the same command again completes it:

    enrol      1 pipeline (if new) and this node in its output datasets' `nodes`, one transaction; what these
                 list is for people to see, who votes is said by datamgmt (docs/decisions/0015)
               2 the agreement of the operator, a file that the runner goes by (mao_shared/agreements.py): an
                 enrolment that may not run would be worse than an agreement to what is not enrolled
               3 the enrolment, which needs the revision of the first; where both stores are one, the same
                 transaction makes the reference to the pipeline
               4 with a federation store of its own: the reference, or the enrolment is taken back
    withdraw   1 this node out of the `nodes` of datasets that no other enrolment writes
               2 the enrolment
               3 the agreement: nothing of the pipeline runs any more

One registry writes a node's enrolments, one at a time (`_writing`); the guards of `references.py` hold
against the rest of the world. Images are resolved and datasets prepared before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from mao_registry.node_services import NodeServices
from mao_registry.records.endorsements import Endorser
from mao_registry.records.references import (
    References,
    delete_unreferenced,
    enrolled_outputs,
    outputs_of,
    still_referenced,
    touch,
)
from mao_registry.records.repositories import Repositories
from mao_registry.records.rules import (
    ReferencedRecords,
    checks_of,
    not_registered,
    read_references,
    title_clash,
    with_node,
    without_node,
)
from mao_registry.records.writes import retry_lost_races, unknown_as_lost, write_record
from mao_shared import keys
from mao_shared.agreements import Agreement
from mao_shared.clock import Clock
from mao_shared.errors import AlreadyExists, NotFound, StillReferenced
from mao_shared.models import Dataset, Enrolment, EnrolmentRequest, Pipeline, PipelineInit, ResolvedImage
from mao_shared.models.common import carry_unknown_fields
from mao_shared.models.pipeline import Pull
from mao_shared.store import Check, Put, Records, Stored, Write
from mao_shared.store.records import StoredPage, dump
from mao_shared.web.dependencies import check_if_match

from .agreements import Agreements
from .definition import check_agreed, digests_of, enrol_command, pins_of, resolve_steps


@dataclass(frozen=True)
class Proposal:
    """What an enrolment would be made of, as it was read.

    `before` is what lies in etcd; `agreement` what the operator has agreed to, which alone is believed.
    """

    pipeline: Pipeline
    referred: ReferencedRecords
    before: Stored[Enrolment] | None
    agreement: Agreement | None

    @property
    def enrolled(self) -> Enrolment | None:
        """What runs here; None when there is no enrolment, or one to which nobody agreed."""
        agreed = self.before and self.agreement and self.agreement.covers(self.before.record)
        return self.before.record if self.before and agreed else None

    @property
    def granted(self) -> set[tuple[str, str]]:
        """Tool and privilege of all that was granted before."""
        return self.agreement.granted if self.agreement else set()


async def by_operator(_: Proposal) -> str:
    """Whoever may enrol this node has asked for it."""
    return "operator"


@dataclass(frozen=True)
class Terms:
    """On what terms a node enrols. `keep_pins`: images whose reference is as before stay as they are pinned.

    `judge` tells who has approved, or raises; it is asked before anything of it is pulled or cloned.
    """

    agree: Sequence[str] = ()
    pull: Pull = "missing"
    keep_pins: bool = False
    judge: Callable[[Proposal], Awaitable[str]] = by_operator
    command: str = ""  # what a person repeats with more agreed to; as for an enrolment when it is empty


class Enrolments:
    """This node's enrolments. Outages raise Unavailable's kinds; peers' refusals pass through."""

    def __init__(
        self,
        shelf: Repositories,
        agreements: Agreements,
        references: References,
        peers: NodeServices,
        endorser: Endorser,
        clock: Clock,
    ) -> None:
        self.shelf = shelf
        self.agreements = agreements
        self.references = references
        self.peers = peers
        self.endorser = endorser
        self.clock = clock
        self._writing = asyncio.Lock()

    @property
    def records(self) -> Records[Enrolment]:
        return self.shelf.enrolments

    async def read(self, pipeline: str) -> Stored[Enrolment]:
        """Raises NotFound."""
        stored = await self.records.get(pipeline)
        if stored is None:
            raise not_enrolled(self.shelf.node, pipeline)
        return stored

    async def taken(self, pipeline: str) -> bool:
        return await self.records.store.get(self.records.prefix + pipeline) is not None

    async def page(self, limit: int, cursor: str | None) -> StoredPage[Enrolment]:
        return await self.records.page(limit, cursor)

    async def init(self, wanted: PipelineInit, *, mine: bool = False) -> Stored[Pipeline]:
        """Registers the pipeline if it is new and enrols this node; checks all before it writes anything.

        A pipeline that is registered as wanted but not enrolled here is enrolled: that is how another node
        joins, and how a crash half-way is completed. `mine`: this node was not enrolled when the command
        first came, so an enrolment that is there is the command's own. Raises AlreadyExists, InvalidInput
        (`unknown-tool`, `unknown-dataset`, `agreement-needed`, a peer's refusal such as `image-not-found`).
        """
        pipeline = wanted.pipeline()
        terms = Terms(agree=wanted.agree, pull=wanted.pull)

        async def attempt() -> Stored[Pipeline] | None:
            stored = await self.shelf.pipelines.get(pipeline.name)
            if stored is not None and (clash := title_clash(pipeline, stored.record)):
                raise clash
            if stored is not None and not same_definition(stored.record, pipeline):
                await read_references(pipeline, self.shelf)  # an unknown tool or dataset is the better answer
                raise name_taken(pipeline.name)
            if await self.records.get(pipeline.name):
                if mine and stored is not None:
                    return stored
                raise enrolled_already(pipeline.name)
            made = await self._enrol(stored or Stored(pipeline, 0), None, terms)
            return made and made[0]

        return await retry_lost_races(attempt, f"the pipeline {pipeline.name!r}")

    async def renew(
        self, name: str, request: EnrolmentRequest, if_match: int | None
    ) -> tuple[Stored[Enrolment], bool]:
        """Enrols in a registered pipeline or renews that (tools, limits and images anew); whether it is new.

        Raises NotFound, PreconditionFailed, and InvalidInput as `init` does.
        """
        return await self.renew_by(name, Terms(agree=request.agree, pull=request.pull), if_match)

    async def renew_by(self, name: str, terms: Terms, if_match: int | None) -> tuple[Stored[Enrolment], bool]:
        """The same on other terms; raises what their judge does as well."""

        async def attempt() -> tuple[Stored[Enrolment], bool] | None:
            pipeline = await self.shelf.pipelines.get(name)
            if pipeline is None:
                raise not_registered(name)
            before = await self.records.get(name)
            check_if_match(if_match, before.revision if before else 0)
            made = await self._enrol(pipeline, before, terms)
            return made and (made[1], before is None)

        return await retry_lost_races(attempt, f"the enrolment in {name!r}")

    async def withdraw(self, name: str, if_match: int | None) -> None:
        """Raises NotFound, PreconditionFailed, StillReferenced (by a schedule or an active run)."""
        find = self.references.to_enrolment
        async with self._writing:
            if not await self.taken(name) and await self.agreements.withdraw(name):
                return  # a crash had cut the same command short
            check = await self._check(name, if_match)
            enrolment = await self.records.find(name)
            if references := await find(name):
                raise still_referenced("enrolment", name, references)
            if enrolment is not None:  # else nobody knows which they were
                await self._leave_datasets(enrolment.record)
            try:
                await delete_unreferenced(
                    self.shelf.own,
                    keys.node_references(self.shelf.node),
                    "enrolment",
                    name,
                    find,
                    lambda: self._check(name, if_match),
                )
            except StillReferenced:  # a schedule was made meanwhile
                if enrolment is not None:
                    await self._join_datasets(enrolment.record)
                raise
            await self.agreements.withdraw(name)
            self.records.gone(check.key)

    async def _check(self, name: str, if_match: int | None) -> Check:
        """Of a record that cannot be read too: to withdraw is the way to be rid of it."""
        entry = await self.records.store.get(self.records.prefix + name)
        if entry is None:
            raise not_enrolled(self.shelf.node, name)
        check_if_match(if_match, entry.revision)
        return Check(entry.key, entry.revision)

    async def _enrol(
        self, pipeline: Stored[Pipeline], before: Stored[Enrolment] | None, terms: Terms
    ) -> tuple[Stored[Pipeline], Stored[Enrolment]] | None:
        """Revision 0 of `pipeline` stands for one that is not registered yet. None: a lost race."""
        referred = await read_references(pipeline.record, self.shelf)
        agreement = await self.agreements.of(pipeline.record.name)
        proposal = Proposal(pipeline.record, referred, before, agreement)
        approved_by = await terms.judge(proposal)
        command = terms.command or enrol_command(pipeline.record, registered=pipeline.revision != 0)
        words = check_agreed(
            [item.record for item in referred.tools.values()],
            terms.agree,
            proposal.granted,
            command,
            pipeline.record.steps,
        )
        kept = pins_of(proposal.enrolled) if terms.keep_pins else {}
        enrolment = await self._resolve(pipeline.record, referred, words, terms.pull, kept)
        async with self._writing:
            registered = await self._write_shared(pipeline, referred)
            if registered is None:
                return None
            facts = {"pipeline_revision": registered.revision, "approved_by": approved_by}
            enrolment = enrolment.model_copy(update=facts)
            if before is not None:  # not the steps': nobody can agree to what nobody here understands
                enrolment = carry_unknown_fields(before.record.model_copy(update={"steps": []}), enrolment)
            await self.agreements.agree(enrolment)
            written = await self._write_own(enrolment, before, registered)
            if written is None:
                return None
            if not self.shelf.one_store:
                await self._confirm(written, is_new=before is None)
            return registered, written

    async def _resolve(
        self,
        pipeline: Pipeline,
        referred: ReferencedRecords,
        words: list[str],
        pull: Pull,
        kept: Mapping[str, ResolvedImage],
    ) -> Enrolment:
        """The enrolment without its pipeline's revision; the peers' refusals come up here."""
        tools = {name: item.record for name, item in referred.tools.items()}
        datasets = {name: item.record for name, item in referred.datasets.items()}
        images = {}
        for image in sorted({tool.image for tool in tools.values()}):
            images[image] = kept.get(image) or await self.peers.resolve_image(image, pull)
        for dataset in datasets.values():
            await self.peers.prepare_dataset(dataset)
        return Enrolment(
            pipeline=pipeline.name,
            title=pipeline.title,
            node=self.shelf.node,
            steps=resolve_steps(pipeline, tools, datasets, images, self.shelf.node),
            overlap=pipeline.overlap,
            agreed=words,
            pipeline_revision=0,
            enrolled_at=self.clock.now(),
            records=digests_of([pipeline, *tools.values(), *datasets.values()]),
        )

    async def _write_shared(
        self, pipeline: Stored[Pipeline], referred: ReferencedRecords
    ) -> Stored[Pipeline] | None:
        """Write 1 of an enrolment; None for a lost race."""
        key = self.shelf.pipelines.prefix + pipeline.record.name
        checks = [Check(key, pipeline.revision), *checks_of(referred, self.shelf)]
        writes: list[Write] = [touch(keys.references())]
        if pipeline.revision == 0:
            writes += [Put(key, dump(pipeline.record)), self.endorser.put(pipeline.record)]
        for name in sorted(outputs_of(pipeline.record)):
            dataset = referred.datasets[name].record
            joined = with_node(dataset, self.shelf.node)
            if joined is not dataset:
                writes.append(Put(self.shelf.datasets.prefix + name, dump(joined)))
        revision = await unknown_as_lost(self.shelf.federation.transact(checks, writes))
        return None if revision is None else Stored(pipeline.record, pipeline.revision or revision)

    async def _write_own(
        self, enrolment: Enrolment, before: Stored[Enrolment] | None, pipeline: Stored[Pipeline]
    ) -> Stored[Enrolment] | None:
        """Write 3 of an enrolment; None for a lost race."""
        name = enrolment.pipeline
        key = self.records.prefix + name
        checks = [Check(key, before.revision if before else 0)]
        writes = [Put(key, dump(enrolment))]
        if self.shelf.one_store:
            checks.append(Check(self.shelf.pipelines.prefix + name, pipeline.revision))
            writes.append(touch(keys.references()))
        revision = await write_record(self.records, name, enrolment, checks, writes)
        return None if revision is None else Stored(enrolment, revision)

    async def _confirm(self, enrolment: Stored[Enrolment], *, is_new: bool) -> None:
        """Write 4 of an enrolment: from here on no delete of the pipeline can overlook it."""
        name = enrolment.record.pipeline

        async def attempt() -> int | None:
            pipeline = await self.shelf.pipelines.get(name)
            if pipeline is None:
                if is_new:
                    await self.records.delete(name, enrolment.revision)
                    await self.agreements.withdraw(name)
                raise not_registered(name)
            check = Check(self.shelf.pipelines.prefix + name, pipeline.revision)
            return await unknown_as_lost(self.shelf.federation.transact([check], [touch(keys.references())]))

        await retry_lost_races(attempt, f"the pipeline {name!r}")

    async def _leave_datasets(self, enrolment: Enrolment) -> None:
        """Takes this node off the datasets that no other enrolment of it writes."""
        others = [item.record for item in await self.records.all()]
        still = {
            name
            for other in others
            if other.pipeline != enrolment.pipeline
            for name in enrolled_outputs(other)
        }
        for name in sorted(enrolled_outputs(enrolment) - still):
            await self._change_dataset(name, without_node)

    async def _join_datasets(self, enrolment: Enrolment) -> None:
        for name in sorted(enrolled_outputs(enrolment)):
            await self._change_dataset(name, with_node)

    async def _change_dataset(self, name: str, change: Callable[[Dataset, str], Dataset]) -> None:
        async def attempt() -> bool | None:
            stored = await self._displayed(name)
            if stored is None:
                return True
            changed = change(stored.record, self.shelf.node)
            if changed is stored.record:
                return True
            written = self.shelf.datasets.replace(name, changed, stored.revision)
            return await unknown_as_lost(written) is not None or None

        await retry_lost_races(attempt, f"the dataset {name!r}")

    async def _displayed(self, dataset: str) -> Stored[Dataset] | None:
        """The record that lists who takes part; one that a member has made unreadable holds up nobody."""
        return await self.shelf.datasets.find(dataset)


def same_definition(one: Pipeline, other: Pipeline) -> bool:
    """Whether two definitions differ at most in their description."""
    return one.steps == other.steps and one.overlap == other.overlap


def not_enrolled(node: str, name: str) -> NotFound:
    return NotFound(
        f"The node {node!r} is not enrolled in a pipeline {name!r}.",
        code="not-enrolled",
        next=f"Enrol it with 'maoctl pipeline enrol {name}'.",
    )


def name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"There is a pipeline {name!r} already, with other steps.",
        next=f"Look at it with 'maoctl pipeline get {name}'; take part in it with"
        f" 'maoctl pipeline enrol {name}', or choose another name.",
    )


def enrolled_already(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"The pipeline {name!r} is registered and this node is enrolled in it already.",
        next=f"Run it with 'maoctl pipeline run {name}'; pin its images anew with"
        f" 'maoctl pipeline enrol {name}'.",
    )
