"""Approval of changes to shared records, which have no effect on this node until then.

An enrolment is a self-contained copy of what runs here. It counts only if the operator has agreed to it
(`agreements.py`), not if somebody else wrote it into etcd. It is compared with what is registered now: the
operator sees the difference and approves exactly that (`Approval.definition`), or it is approved
automatically if trusted nodes endorse every changed record and it requests no new privileges.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from mao_registry.records.endorsements import endorsers
from mao_registry.records.rules import ReferencedRecords, not_found, read_references
from mao_registry.records.stores import Repositories
from mao_shared.errors import Conflict, MaoError, PreconditionFailed, Unavailable
from mao_shared.models import Approval, Enrolment, Listing, Pipeline, PipelineDiff, PipelineState, Rebuilt
from mao_shared.models.common import stored_fields, unreadable_items
from mao_shared.store import Stored

from .definition import (
    Document,
    consent_document,
    definition_id,
    describe_changes,
    gained_privileges,
    image_pins,
    proposed_steps,
    record_digests,
    requested_privileges,
    unified_diff,
)
from .enrolments import Enrolments, Proposal, Terms

NO_DOCUMENT: Document = {"overlap": None, "steps": {}}
NOT_AGREED = "this enrolment was not agreed to on this node, so nothing of it runs"
DIFF_STEP = "See what changed: maoctl pipeline diff {}"


@dataclass(frozen=True)
class ProposedChange:
    """A comparison of what runs on this node now with what would run after a change."""

    proposal: Proposal
    before: Document
    after: Document
    digests: dict[str, str]
    widened: list[str]

    @property
    def definition(self) -> str:
        return definition_id(self.proposal.pipeline.name, self.after)

    @property
    def pending(self) -> list[str]:
        """Describe what would change, one line for each change."""
        changes = describe_changes(self.before, self.after) if self.proposal.before else []
        return [NOT_AGREED, *changes] if self.proposal.before and not self.proposal.enrolled else changes

    @property
    def changed(self) -> dict[str, str]:
        """Return `kind/name` → digest of the records that have changed since the operator agreed."""
        known = self.proposal.enrolled.records if self.proposal.enrolled else {}
        return {label: digest for label, digest in self.digests.items() if known.get(label) != digest}

    @property
    def new_privileges(self) -> list[str]:
        """Return the requested privileges that the same tools have not been granted before."""
        tools = [stored.record for stored in self.proposal.referenced.tools.values()]
        requested = requested_privileges(tools, self.proposal.pipeline.steps)
        return sorted({word for tool, word in requested if (tool, word) not in self.proposal.granted})


def compare(proposal: Proposal, node: str) -> ProposedChange:
    """Compare what runs on `node` with what would run after the change. Pure."""
    enrolled = proposal.enrolled
    tools = {name: stored.record for name, stored in proposal.referenced.tools.items()}
    datasets = {name: stored.record for name, stored in proposal.referenced.datasets.items()}
    steps = proposed_steps(proposal.pipeline, tools, datasets, node, enrolled)
    return ProposedChange(
        proposal=proposal,
        before=consent_document(enrolled.overlap, enrolled.steps) if enrolled else NO_DOCUMENT,
        after=consent_document(proposal.pipeline.overlap, steps),
        digests=record_digests([proposal.pipeline, *tools.values(), *datasets.values()]),
        widened=gained_privileges(enrolled.steps if enrolled else [], steps),
    )


class Approvals:
    """Pending changes on this node, and their approval."""

    def __init__(self, repositories: Repositories, enrolments: Enrolments) -> None:
        self.repositories = repositories
        self.enrolments = enrolments

    async def diff(self, name: str) -> PipelineDiff:
        """Return what would change on this node if the registered pipeline were approved.

        Raises NotFound, and InvalidInput if a tool or dataset of the pipeline is missing.
        """
        pipeline = await self.repositories.pipelines.get(name)
        if pipeline is None:
            raise not_found("pipeline", name)
        referenced = await read_references(pipeline.record, self.repositories)
        before = await self.enrolments.records.get(name)
        change = compare(await self._proposal(pipeline.record, referenced, before), self.repositories.node)
        enrolled = change.proposal.enrolled
        was = f"{name} as it runs on {self.repositories.node}" if enrolled else "/dev/null"
        text = await asyncio.to_thread(
            unified_diff, change.before, change.after, was=was, will_be=f"{name} as it is registered"
        )
        trusts = bool(await self.enrolments.agreements.trusted())
        endorsed = await self._endorsers(change) if trusts else {}
        rebuilt: dict[str, Rebuilt] = {}
        for image, pin in image_pins(enrolled).items():
            with suppress(MaoError):  # an image that cannot be resolved here is left out
                here = (await self.enrolments.services.resolve_image(image, "never")).pinned
                if here != pin.pinned:
                    rebuilt[image] = Rebuilt(pinned=pin.pinned, here=here)
        return PipelineDiff(
            pipeline=name,
            enrolled=change.proposal.before is not None,
            definition=change.definition,
            pending=change.pending,
            diff=text,
            agree=change.new_privileges,
            endorsed=endorsed,
            rebuilt=rebuilt,
        )

    async def _endorsers(self, change: ProposedChange) -> dict[str, list[str]]:
        """Return changed record → trusted nodes that endorse it."""
        trusted = await self.enrolments.agreements.trusted()
        return await endorsers(self.repositories.federation, change.changed, trusted)

    async def approve(self, name: str, approval: Approval) -> Stored[Enrolment]:
        """Enrol in the definition that the operator has seen; unchanged image references keep their pins.

        Raises NotFound, PreconditionFailed (`definition-changed`) if another definition is registered by now,
        and the errors of `Enrolments.renew`.
        """

        async def check(proposal: Proposal) -> str:
            if compare(proposal, self.repositories.node).definition != approval.definition:
                raise PreconditionFailed(
                    f"What is registered as {name!r} has changed since it was shown.",
                    code="definition-changed",
                    next=DIFF_STEP.format(name),
                )
            return "operator"

        command = f"maoctl pipeline approve {name} --revision {approval.definition}"
        terms = Terms(agree=approval.agree, keep_pins=True, approve=check, command=command)
        return (await self.enrolments.renew_on(name, terms, None))[0]

    async def auto_approve(self, name: str) -> Stored[Enrolment]:
        """Enrol without asking the operator.

        Raises Conflict: `nothing-pending`, `not-agreed`, `agreement-needed` for new privileges, and
        `not-endorsed` unless trusted nodes endorse everything that changed.
        """

        async def check(proposal: Proposal) -> str:
            change = compare(proposal, self.repositories.node)
            if proposal.before is None or not change.pending:
                raise Conflict(f"Nothing is pending for {name!r}.", code="nothing-pending")
            if proposal.enrolled is None:
                raise _needs_operator(
                    f"The enrolment in {name!r} was not agreed to on this node, so the operator has to"
                    " approve it.",
                    "not-agreed",
                    name,
                )
            if change.widened:
                gained = "; ".join(change.widened[:5])
                raise _needs_operator(
                    f"The operator has to approve the change of {name!r}: {gained}.", "agreement-needed", name
                )
            endorsed = await self._endorsers(change)
            if missing := sorted(label for label, nodes in endorsed.items() if not nodes):
                raise _needs_operator(
                    f"No trusted node endorses what changed in {name!r}: {', '.join(missing[:5])}.",
                    "not-endorsed",
                    name,
                )
            return "trusted:" + ",".join(sorted({node for nodes in endorsed.values() for node in nodes}))

        return (await self.enrolments.renew_on(name, Terms(keep_pins=True, approve=check), None))[0]

    async def states(self, limit: int, cursor: str | None) -> Listing[PipelineState]:
        """List the federation's pipelines with this node's enrolment in each, and what is pending.

        The first page also lists this node's enrolments that cannot be read.
        """
        page = await self.repositories.pipelines.page(limit, cursor)
        enrolments = await self.enrolments.records.page()
        enrolled = {stored.record.pipeline: stored for stored in enrolments.items}
        pipelines = [stored.record for stored in page.items]
        unreadable = [*page.unreadable, *(enrolments.unreadable if cursor is None else ())]
        return Listing(
            items=list(
                await asyncio.gather(
                    *(self._state(pipeline, enrolled.get(pipeline.name)) for pipeline in pipelines)
                )
            ),
            cursor=page.cursor,
            unreadable=unreadable_items(unreadable),
        )

    async def _state(self, pipeline: Pipeline, enrolled: Stored[Enrolment] | None) -> PipelineState:
        pending = await self.pending(pipeline, enrolled) if enrolled else []
        return PipelineState(
            **stored_fields(pipeline),
            enrolled=enrolled is not None,
            outdated=bool(pending),
            pending=pending,
            enrolment=enrolled and enrolled.record,
        )

    async def pending(self, pipeline: Pipeline, enrolled: Stored[Enrolment]) -> list[str]:
        """Describe what would change, or the error that prevents the comparison."""
        try:
            referenced = await read_references(pipeline, self.repositories)
        except Unavailable:
            raise
        except MaoError as error:
            return [error.detail]
        return compare(await self._proposal(pipeline, referenced, enrolled), self.repositories.node).pending

    async def _proposal(
        self, pipeline: Pipeline, referenced: ReferencedRecords, before: Stored[Enrolment] | None
    ) -> Proposal:
        agreement = await self.enrolments.agreements.find(pipeline.name)
        return Proposal(pipeline, referenced, before, agreement)


def _needs_operator(detail: str, code: str, name: str) -> Conflict:
    return Conflict(detail, code=code, next=DIFF_STEP.format(name))
