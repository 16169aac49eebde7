"""Reports rounds to operators: their live state, and alarms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Literal

from mao_datamgmt.context import Context
from mao_shared.models import Alarm, Announcement, Attestation, Listing, Round
from mao_shared.models.round import ROUND_ENDED, LiveRound
from mao_shared.reconcile import Mirror
from mao_shared.store import Stored

from .peer_records import current_attestations

ALARM_MAX_AGE = timedelta(days=7)  # no alarm is raised about a round that ended earlier
PhaseFilter = Literal["live", "open", "closed", "decided", "undecided"]


def live_round(
    round_: Round,
    announced: Mapping[str, Stored[Announcement]],
    attested: Mapping[str, Stored[Attestation]],
    others: Sequence[Round] = (),
) -> LiveRound:
    """Return a round with its live state. Pure. `others` are the dataset's live rounds."""
    commits = {node: stored.record.commit for node, stored in announced.items() if node in round_.nodes}
    votes = current_attestations(round_, attested)
    waits_for = None
    if round_.phase == "open" and all(node in commits for node in round_.nodes):
        earlier = [other for other in others if other.phase == "closed" or other.tick < round_.tick]
        waits_for = min((other.id for other in earlier if other.id != round_.id), default=None)
    fields = {name: getattr(round_, name) for name in Round.model_fields}
    return LiveRound(
        **fields,
        needed_nodes=round_.needed,
        announced=commits,
        silent=[node for node in round_.nodes if node not in commits and node not in round_.commits],
        computed={node: vote.commit for node, vote in votes.items()},
        missing={node: vote.missing for node, vote in votes.items() if vote.commit is None},
        waits_for=waits_for,
    )


def matches_filter(round_: Round, dataset: str | None, phase: PhaseFilter | None) -> bool:
    if dataset is not None and round_.dataset != dataset:
        return False
    return phase is None or (round_.phase not in ROUND_ENDED if phase == "live" else round_.phase == phase)


def page_of_rounds(rounds: Sequence[Round], limit: int, cursor: str | None) -> Listing[Round]:
    """Return a page of rounds, newest first. `cursor` is that of the previous page; any text is accepted."""
    ordered = sorted(rounds, key=_sort_key, reverse=True)
    remaining = [round_ for round_ in ordered if cursor is None or _sort_key(round_) < cursor]
    more = len(remaining) > limit
    return Listing(items=remaining[:limit], cursor=_sort_key(remaining[limit - 1]) if more else None)


def _sort_key(round_: Round) -> str:
    return f"{round_.id} {round_.dataset}"


class RoundOutcomes:
    """Counts the rounds that end while this service watches them: a restart counts none again.

    `count` is called with the outcome, `decided` or `undecided`.
    """

    def __init__(self, mirror: Mirror[Round], count: Callable[[str], object]) -> None:
        self._mirror, self._count = mirror, count
        self._live: set[str] = set()
        mirror.subscribe(self._changed)

    def _changed(self, name: str) -> None:
        stored = self._mirror.get(name)
        if stored is None:
            self._live.discard(name)
        elif stored.record.phase not in ROUND_ENDED:
            self._live.add(name)
        elif name in self._live:
            self._live.remove(name)
            self._count(stored.record.phase)


class RoundAlarms:
    """Alarms about rounds, each raised once on every node that votes in them.

    `raise_alarm` does nothing for an id that was raised before.
    """

    def __init__(self, context: Context, raise_alarm: Callable[[Alarm], Awaitable[object]]) -> None:
        self._context = context
        self._raise = raise_alarm
        self._raised: set[str] = set()

    async def undecided(self, round_: Round) -> None:
        """Raise an alarm if the round ended undecided."""
        if self._is_new(round_) and round_.phase == "undecided":
            await self._once(
                round_,
                f"{round_.tick:%Y%m%d}T000000Z.undecided.{round_.dataset}",  # one a day
                f"Round {round_.id} of dataset {round_.dataset} is undecided: {round_.reason}. "
                f"Further ones of that day are listed by: maoctl vote status {round_.dataset}",
            )

    async def violations(self, round_: Round, nodes: Mapping[str, str]) -> None:
        """Raise an alarm for each violation by a node."""
        if not self._is_new(round_):
            return
        for node, violation in nodes.items():
            detail = f"Node {node} in round {round_.id} of dataset {round_.dataset}: {violation}."
            await self._once(round_, f"{round_.id}.{node}", detail)

    def _is_new(self, round_: Round) -> bool:
        now = self._context.clock.now()
        return self._context.node in round_.nodes and now - (round_.ended_at or now) <= ALARM_MAX_AGE

    async def moved_by_others(self, round_: Round, known: str | None, tip: str | None) -> None:
        """Raise an alarm if ground truth is not at the commit of the last round."""
        if known == tip:
            return
        state = "gone" if tip is None else f"at {tip[:10]}"
        await self._once(
            round_,
            f"{round_.tick:%Y%m%dT%H%M%SZ}.moved.{round_.dataset}.{(tip or 'gone')[:10]}",
            f"The ground truth of dataset {round_.dataset} is {state}, but the last round left it at "
            f"{(known or 'nothing')[:10]}: somebody has pushed to it. The next rounds build on it.",
        )

    async def false_record(self, round_: Round, claim: str) -> None:
        """Raise an alarm about a false claim in a round's record; etcd does not record who wrote it."""
        await self._once(
            round_,
            f"{round_.id}.unfounded",
            f"Round {round_.id} of dataset {round_.dataset} {claim}: some node writes false records. "
            "The round was reset.",
        )

    async def _once(self, round_: Round, alarm_id: str, detail: str) -> None:
        if alarm_id in self._raised:
            return
        await self._raise(
            Alarm(
                id=alarm_id,
                kind="round",
                node=self._context.node,
                raised_at=self._context.clock.now(),
                pipeline=round_.pipeline,
                step=round_.step,
                dataset=round_.dataset,
                detail=detail,
            )
        )
        self._raised.add(alarm_id)
