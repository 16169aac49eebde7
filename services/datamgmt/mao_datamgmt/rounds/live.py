"""Rounds as they stand, for people to look at: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mao_shared.models import Announcement, Attestation, Listing, NodeName, Round
from mao_shared.models.round import ROUND_ENDED
from mao_shared.store import Stored

Asked = Literal["live", "open", "closed", "decided", "undecided"]


class LiveRound(Round):
    """A round and who has said what. `needed_nodes`: so many must bring a snapshot and attest the same.

    `announced` and `computed` hold commits by node, null where a node abstains or could not compute.
    `silent`: nodes that have announced nothing.
    """

    needed_nodes: int
    announced: dict[NodeName, str | None]
    silent: list[NodeName]
    computed: dict[NodeName, str | None]


def live_round(
    round_: Round,
    announced: Mapping[str, Stored[Announcement]],
    attested: Mapping[str, Stored[Attestation]],
) -> LiveRound:
    said = {node: each.record.commit for node, each in announced.items() if node in round_.nodes}
    votes = {node: each.record for node, each in attested.items() if node in round_.nodes}
    fields = {name: getattr(round_, name) for name in Round.model_fields}
    return LiveRound(
        **fields,
        needed_nodes=round_.needed,
        announced=said,
        silent=[node for node in round_.nodes if node not in said and node not in round_.commits],
        computed={node: vote.commit for node, vote in votes.items() if vote.attempt == round_.attempt},
    )


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
