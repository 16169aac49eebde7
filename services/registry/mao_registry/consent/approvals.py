"""Changes in the federation stay pending until the operator approves them.

An enrolment is a copy of all that runs, as far as the operator has agreed to it (`agreements.py`): one that
somebody has written into etcd counts as none. Here it is held against what is registered now; the operator is
shown the difference and approves exactly that (`Approval.definition`), or it is taken over unasked when every
record that changed is endorsed by a node that the operator trusts, and it asks for nothing new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from mao_registry.records.endorsements import endorsers
from mao_registry.records.repositories import Repositories
from mao_registry.records.rules import ReferencedRecords, not_registered, read_references
from mao_shared.errors import Conflict, MaoError, PreconditionFailed, Unavailable
from mao_shared.models import Approval, Enrolment, Listing, Pipeline, PipelineDiff, PipelineState, Rebuilt
from mao_shared.models.common import stored_fields, unreadable_items
from mao_shared.store import Stored

from .definition import (
    Document,
    definition_id,
    describe_changes,
    digests_of,
    document_of,
    proposed_steps,
    requested_privileges,
    unified_diff,
    widened,
)
from .enrolments import Enrolments, Proposal, Terms

NO_DOCUMENT: Document = {"overlap": None, "steps": {}}
NOT_AGREED = "what this node is enrolled in was not agreed to on this node, so nothing of it runs"
SHOW = "See what changed: maoctl pipeline diff {}"


@dataclass(frozen=True)
class ProposedChange:
    """What runs here against a proposal of what would."""

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
        words = describe_changes(self.before, self.after) if self.proposal.before else []
        return [NOT_AGREED, *words] if self.proposal.before and not self.proposal.enrolled else words

    @property
    def changed(self) -> dict[str, str]:
        """`kind/name` → digest of the records that are not as they were when the operator agreed."""
        known = self.proposal.enrolled.records if self.proposal.enrolled else {}
        return {label: digest for label, digest in self.digests.items() if known.get(label) != digest}

    @property
    def new_words(self) -> list[str]:
        """What is to be agreed to that was not granted to the same tool before."""
        kept = self.proposal.granted
        tools = [stored.record for stored in self.proposal.referred.tools.values()]
        asked = requested_privileges(tools, self.proposal.pipeline.steps)
        return sorted({word for tool, word in asked if (tool, word) not in kept})


def compare(proposal: Proposal, node: str) -> ProposedChange:
    """Pure."""
    enrolled = proposal.enrolled
    tools = {name: stored.record for name, stored in proposal.referred.tools.items()}
    datasets = {name: stored.record for name, stored in proposal.referred.datasets.items()}
    steps = proposed_steps(proposal.pipeline, tools, datasets, node, enrolled)
    return ProposedChange(
        proposal=proposal,
        before=document_of(enrolled.overlap, enrolled.steps) if enrolled else NO_DOCUMENT,
        after=document_of(proposal.pipeline.overlap, steps),
        digests=digests_of([proposal.pipeline, *tools.values(), *datasets.values()]),
        widened=widened(enrolled.steps if enrolled else [], steps),
    )


class Approvals:
    """What is pending on this node, and how it is approved."""

    def __init__(self, shelf: Repositories, enrolments: Enrolments) -> None:
        self.shelf = shelf
        self.enrolments = enrolments

    async def diff(self, name: str) -> PipelineDiff:
        """Raises NotFound, and InvalidInput when a tool or dataset of the pipeline is gone."""
        found = await self._compare(name)
        enrolled = found.proposal.before is not None
        was = f"{name} as it runs on {self.shelf.node}" if found.proposal.enrolled else "/dev/null"
        will_be = f"{name} as it is registered"
        text = await asyncio.to_thread(unified_diff, found.before, found.after, was=was, will_be=will_be)
        endorsed = await endorsers(
            self.shelf.federation, found.changed, await self.enrolments.agreements.trusted()
        )
        steps = found.proposal.enrolled.steps if found.proposal.enrolled else []
        return PipelineDiff(
            pipeline=name,
            enrolled=enrolled,
            definition=found.definition,
            pending=found.pending,
            diff=text,
            agree=found.new_words,
            endorsed=endorsed,
            rebuilt=await self._rebuilt({step.image.name: step.image.pinned for step in steps}),
        )

    async def _rebuilt(self, pins: Mapping[str, str]) -> dict[str, Rebuilt]:
        """Left out is what nobody can tell: an image that is not here, an engine that does not answer."""
        found: dict[str, Rebuilt] = {}
        for name, pinned in pins.items():
            with suppress(MaoError):
                here = (await self.enrolments.peers.resolve_image(name, "never")).pinned
                if here != pinned:
                    found[name] = Rebuilt(pinned=pinned, here=here)
        return found

    async def approve(self, name: str, approval: Approval) -> Stored[Enrolment]:
        """Takes over what was shown, image by image as it is pinned where its reference is the same.

        Raises NotFound, PreconditionFailed (`definition-changed`) when something else is registered by now,
        and what an enrolment raises.
        """

        async def judge(proposal: Proposal) -> str:
            if compare(proposal, self.shelf.node).definition != approval.definition:
                raise _changed_since(name)
            return "operator"

        command = f"maoctl pipeline approve {name} --revision {approval.definition}"
        terms = Terms(agree=approval.agree, keep_pins=True, judge=judge, command=command)
        return (await self.enrolments.renew_by(name, terms, None))[0]

    async def take_over(self, name: str) -> Stored[Enrolment]:
        """Without the operator: raises Conflict unless trusted nodes stand for all that changed."""

        async def judge(proposal: Proposal) -> str:
            found = compare(proposal, self.shelf.node)
            if proposal.before is None or not found.pending:
                raise Conflict(f"Nothing of {name!r} is to be taken over.", code="nothing-pending")
            if proposal.enrolled is None:
                raise _not_agreed(name)
            if found.widened:
                raise _asks_more(name, found.widened)
            endorsed = await endorsers(
                self.shelf.federation, found.changed, await self.enrolments.agreements.trusted()
            )
            if lacking := sorted(label for label, nodes in endorsed.items() if not nodes):
                raise _not_endorsed(name, lacking)
            return "trusted:" + ",".join(sorted({node for nodes in endorsed.values() for node in nodes}))

        return (await self.enrolments.renew_by(name, Terms(keep_pins=True, judge=judge), None))[0]

    async def states(self, limit: int, cursor: str | None) -> Listing[PipelineState]:
        """Pipelines of the federation with this node's part in each, and what is pending.

        The first page names this node's enrolments that cannot be read as well.
        """
        page, enrolled = await self.shelf.pipelines.page(limit, cursor), await self.enrolments.records.page()
        own = {item.record.pipeline: item for item in enrolled.items}
        found = [(item.record, own.get(item.record.name)) for item in page.items]
        unreadable = [*page.unreadable, *(enrolled.unreadable if cursor is None else ())]
        return Listing(
            items=list(await asyncio.gather(*(self._state(*each) for each in found))),
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
        """What would change, in words; what keeps it from being told is such a word too."""
        try:
            referred = await read_references(pipeline, self.shelf)
        except Unavailable:
            raise
        except MaoError as error:
            return [error.detail]
        return compare(await self._proposal(pipeline, referred, enrolled), self.shelf.node).pending

    async def _compare(self, name: str) -> ProposedChange:
        pipeline = await self.shelf.pipelines.get(name)
        if pipeline is None:
            raise not_registered(name)
        referred = await read_references(pipeline.record, self.shelf)
        before = await self.enrolments.records.get(name)
        return compare(await self._proposal(pipeline.record, referred, before), self.shelf.node)

    async def _proposal(
        self, pipeline: Pipeline, referred: ReferencedRecords, before: Stored[Enrolment] | None
    ) -> Proposal:
        agreement = await self.enrolments.agreements.of(pipeline.name)
        return Proposal(pipeline, referred, before, agreement)


def _changed_since(name: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"What is registered as {name!r} is not what was shown: it has been changed since.",
        code="definition-changed",
        next=SHOW.format(name),
    )


def _asks_more(name: str, words: list[str]) -> Conflict:
    return Conflict(
        f"The change of {name!r} needs the operator's word: {'; '.join(words[:5])}.",
        code="agreement-needed",
        next=SHOW.format(name),
    )


def _not_agreed(name: str) -> Conflict:
    return Conflict(
        f"The enrolment in {name!r} was not agreed to on this node, so it needs the operator's word.",
        code="not-agreed",
        next=SHOW.format(name),
    )


def _not_endorsed(name: str, records: list[str]) -> Conflict:
    return Conflict(
        f"No trusted node stands for what changed in {name!r}: {', '.join(records[:5])}.",
        code="not-endorsed",
        next=SHOW.format(name),
    )
