"""What this node's operator has agreed to: in which datasets it has a say, where they lie, and how they vote.

The datasets' records are the federation's, and any member can write them, or make them unreadable. What a
round needs is taken from the node's own enrolments; only how a new round votes is asked of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mao_shared.models import Dataset, Enrolment, VoteDefinition
from mao_shared.store import Records


@dataclass(frozen=True)
class Consented:
    """`dataset`: as agreed to, its `nodes` those that have a say. `definitions`: by which this node votes."""

    dataset: Dataset
    definitions: list[VoteDefinition]


async def consented(
    enrolments: Records[Enrolment], name: str, declared: Dataset | None, voters: Sequence[str]
) -> Consented | None:
    """None where no enrolment of this node writes to the dataset: it has no say in it then.

    `declared`: the dataset's record, if it can be read.
    """
    written = [
        step.output
        for each in await enrolments.all()
        for step in each.record.steps
        if step.output.name == name
    ]
    if not written:
        return None
    ours = written[0]
    known = declared or Dataset(name=name, master=ours.master, vote=ours.vote)
    dataset = known.model_copy(update={"master": ours.master, "nodes": sorted(set(voters))})
    return Consented(dataset, [each.vote or VoteDefinition() for each in written])
