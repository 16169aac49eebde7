"""What this node's operator has agreed to: in which datasets it has a say, where they lie, and how they vote.

The datasets' records are the federation's, and any member can write them. What a round makes of them is taken
from the node's own enrolments.
"""

from __future__ import annotations

from dataclasses import dataclass

from mao_shared.models import Dataset, Enrolment, VoteDefinition
from mao_shared.store import Records


@dataclass(frozen=True)
class Consented:
    """`dataset`: the record with what was agreed to. `definitions`: those by which this node votes."""

    dataset: Dataset
    definitions: list[VoteDefinition]


async def consented(enrolments: Records[Enrolment], declared: Dataset) -> Consented | None:
    """None where no enrolment of this node writes to the dataset: it has no say in it then."""
    written = [
        step.output
        for each in await enrolments.all()
        for step in each.record.steps
        if step.output.name == declared.name
    ]
    if not written:
        return None
    dataset = declared.model_copy(update={"master": written[0].master})
    return Consented(dataset, [each.vote or VoteDefinition() for each in written])
