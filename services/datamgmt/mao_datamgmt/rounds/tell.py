"""Alarms about rounds, each raised once on every node that has a say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from mao_datamgmt.context import Context
from mao_shared.models import Alarm, Round

NEWS = timedelta(days=7)  # age of a round's end beyond which nobody is alarmed by it


class Teller:
    """`raise_alarm` raises an alarm that was raised before no second time."""

    def __init__(self, context: Context, raise_alarm: Callable[[Alarm], Awaitable[object]]) -> None:
        self._context = context
        self._raise = raise_alarm
        self._told: set[str] = set()

    async def about(self, round_: Round) -> None:
        """Of a round that came to nothing."""
        if self._is_news(round_) and round_.phase == "undecided":
            await self._once(
                round_,
                f"{round_.tick:%Y%m%d}T000000Z.undecided.{round_.dataset}",  # one a day
                f"Round {round_.id} of dataset {round_.dataset} is undecided: {round_.reason}. "
                f"Further ones of that day are listed by: maoctl vote status {round_.dataset}",
            )

    async def caught(self, round_: Round, others: Mapping[str, str]) -> None:
        """What this node itself has found nodes to do: node → what."""
        if not self._is_news(round_):
            return
        for node, words in others.items():
            detail = f"Node {node} in round {round_.id} of dataset {round_.dataset}: {words}."
            await self._once(round_, f"{round_.id}.{node}", detail)

    def _is_news(self, round_: Round) -> bool:
        now = self._context.clock.now()
        return self._context.node in round_.nodes and now - (round_.ended_at or now) <= NEWS

    async def moved_by_others(self, round_: Round, known: str | None, tip: str | None) -> None:
        """Ground truth is not where the last round has left it."""
        if known == tip:
            return
        at = "gone" if tip is None else f"at {tip[:10]}"
        await self._once(
            round_,
            f"{round_.tick:%Y%m%dT%H%M%SZ}.moved.{round_.dataset}.{(tip or 'gone')[:10]}",
            f"The ground truth of dataset {round_.dataset} is {at}, where the last round had left it at "
            f"{(known or 'nothing')[:10]}: somebody has pushed to it. The next rounds build upon it.",
        )

    async def unfounded(self, round_: Round, words: str) -> None:
        """The round's record says what is not so; etcd does not tell who wrote it."""
        await self._once(
            round_,
            f"{round_.id}.unfounded",
            f"Round {round_.id} of dataset {round_.dataset} {words}: some node writes what is not so. "
            "It is put right.",
        )

    async def _once(self, round_: Round, alarm_id: str, detail: str) -> None:
        if alarm_id in self._told:
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
        self._told.add(alarm_id)
