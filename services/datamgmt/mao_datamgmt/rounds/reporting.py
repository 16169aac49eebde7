"""Rounds as they stand, for people to look at: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mao_shared.models import Announcement, Attestation, Listing, NodeName, Round
from mao_shared.models.models_round import ROUND_ENDED
from mao_shared.store import Stored

Asked = Literal["live", "open", "closed", "decided", "undecided"]


class LiveRound(Round):
    """A round and who has said what. `needed_nodes`: so many must bring a snapshot and attest the same.

    `announced` and `computed` hold commits by node, null where a node abstains or could not compute.
    `silent`: nodes that have announced nothing. `missing`: what nodes lack that could not compute.
    `waits_for`: the round that has to end before this one can be closed.
    """

    needed_nodes: int
    announced: dict[NodeName, str | None]
    silent: list[NodeName]
    computed: dict[NodeName, str | None]
    missing: dict[NodeName, str]
    waits_for: str | None = None


def live_round(
    round_: Round,
    announced: Mapping[str, Stored[Announcement]],
    attested: Mapping[str, Stored[Attestation]],
    others: Sequence[Round] = (),
) -> LiveRound:
    """`others`: the dataset's rounds that go on."""
    said = {node: each.record.commit for node, each in announced.items() if node in round_.nodes}
    votes = {
        node: each.record
        for node, each in attested.items()
        if node in round_.nodes and each.record.attempt == round_.attempt
    }
    fields = {name: getattr(round_, name) for name in Round.model_fields}
    return LiveRound(
        **fields,
        needed_nodes=round_.needed,
        announced=said,
        silent=[node for node in round_.nodes if node not in said and node not in round_.commits],
        computed={node: vote.commit for node, vote in votes.items()},
        missing={node: vote.missing for node, vote in votes.items() if vote.commit is None},
        waits_for=_waits_for(round_, said, others),
    )


def _waits_for(round_: Round, said: Mapping[str, str | None], others: Sequence[Round]) -> str | None:
    if round_.phase != "open" or any(node not in said for node in round_.nodes):
        return None
    before = [each for each in others if each.phase == "closed" or each.tick < round_.tick]
    return min((each.id for each in before if each.id != round_.id), default=None)


def is_asked(round_: Round, dataset: str | None, phase: Asked | None) -> bool:
    if dataset is not None and round_.dataset != dataset:
        return False
    return phase is None or (round_.phase not in ROUND_ENDED if phase == "live" else round_.phase == phase)


def page(rounds: Sequence[Round], limit: int, cursor: str | None) -> Listing[Round]:
    """The newest first. `cursor`: where the page before has ended; any text is understood."""
    ordered = sorted(rounds, key=_place, reverse=True)
    left = [each for each in ordered if cursor is None or _place(each) < cursor]
    more = len(left) > limit
    return Listing(items=left[:limit], cursor=_place(left[limit - 1]) if more else None)


def _place(round_: Round) -> str:
    return f"{round_.id} {round_.dataset}"
