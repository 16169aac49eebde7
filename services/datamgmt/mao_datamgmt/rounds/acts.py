"""Does what `decide` says about a round; each act ends with one guarded write, and may be begun again.

A write that lost its race leaves everything to the next look: the watch brings what the other has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from mao_datamgmt.context import Context
from mao_datamgmt.works import Works
from mao_shared import keys
from mao_shared.errors import MaoError, StoreUnavailable, StoreUnknown
from mao_shared.logs import get_logger
from mao_shared.models import Announcement, Attestation, Dataset, Round
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Put, Records, Stored
from mao_shared.store.records import dump

from .decide import (
    NO_QUORUM,
    Action,
    Attest,
    Close,
    Open,
    Seen,
    Write,
    place,
    silence_checks,
    too_few,
    undecided,
)
from .deliver import Delivered, deliver
from .founded import is_upheld
from .look import Looked, Pins, faults, left_out, look
from .said import Heard, Said
from .tell import Teller
from .votes import Result, Task, Vote

log = get_logger(__name__)

NOT_MADE = 5.0  # seconds to look again when another node has to deliver


class Acts:
    """Of one node, on rounds of the federation."""

    def __init__(
        self,
        context: Context,
        works: Works,
        rounds: Mirror[Round],
        heard: Heard,
        vote: Vote,
        tell: Teller,
    ) -> None:
        self._context = context
        self._works = works
        self._rounds = rounds
        self._heard = heard
        self.vote = vote
        self._tell = tell
        self._store = rounds.records.store
        prefix = f"{keys.peer_root(context.node)}attestations/"
        self._attestations = Records(self._store, prefix, Attestation)

    def _now(self) -> datetime:
        return self._context.clock.now()

    async def do(self, action: Action, dataset: Dataset, seen: Seen) -> float | None:
        """Seconds until the round is to be looked at again, where nothing else will say so."""
        if isinstance(action, Open):
            await self._open(action.round)
            return None
        stored = action.stored
        if isinstance(action, Write):
            await self._write(stored, action.round, action.checks)
            return None
        last = last_decided(seen, stored.record)
        if isinstance(action, Close):
            await self._close(stored, stored.record, dataset, last)
            return None
        if isinstance(action, Attest):
            await (self._attest(stored, dataset, last) if action.agreed else self._refuse(stored.record))
            return None
        return await self._deliver(stored, dataset, last)

    # writes

    async def _open(self, round_: Round) -> None:
        revision = await self._rounds.records.create(_name(round_), round_)
        if revision is not None:
            self._rounds.note(_name(round_), round_, revision)
            log.info("round.opened", round=round_.id, nodes=round_.nodes)

    async def _write(self, stored: Stored[Round], round_: Round, checks: Sequence[Check] = ()) -> None:
        key = keys.round(round_.dataset, round_.id)
        guards = [Check(key, stored.revision), *checks]
        revision = await self._store.transact(guards, [Put(key, dump(round_))])
        if revision is None:
            log.info("round.race_lost", round=round_.id, wanted=round_.phase)
            return
        self._rounds.note(_name(round_), round_, revision)
        facts = {"attempt": round_.attempt, "commit": round_.commit, "reason": round_.reason}
        log.info("round.moved", round=round_.id, phase=round_.phase, **facts)

    # closing

    async def _announced(self, round_: Round) -> Said:
        """Read anew: what is said of nodes that are silent must be true."""
        prefix = keys.all_peers()
        records = Records(self._store, prefix, Announcement)
        names = [
            keys.announcement(node, round_.dataset, round_.id).removeprefix(prefix) for node in round_.nodes
        ]
        found = await asyncio.gather(*map(records.get, names))
        return {node: each for node, each in zip(round_.nodes, found, strict=True) if each is not None}

    async def _close(self, stored: Stored[Round], draft: Round, dataset: Dataset, last: Round | None) -> None:
        """Pins what there is; `draft`: the round as it is to be closed, but for that."""
        said = await self._announced(draft)
        looked: Looked = await self._works.change(
            [dataset.name], look, self._context, dataset, draft, said, last
        )
        pins, now = looked.pins, self._now()
        flagged = {**pins.flagged, **draft.flagged}
        pinned = draft.changed(commits=pins.commits, abstained=pins.abstained, flagged=flagged)
        reason = too_few(pinned, pins.commits, pins.abstained)
        if reason is not None:
            await self._write(stored, undecided(pinned, now, reason), silence_checks(draft, said))
            return
        if last is not None and looked.made is None:
            await self._tell.moved_by_others(pinned, last.commit, looked.tip)
        base = await self._base(looked, pinned, pins)
        fresh: dict[str, object] = {"commit": None, "tree": None, "attested": [], "base": base}
        closed = pinned.changed(phase="closed", closed_by=self._context.node, closed_at=now, **fresh)
        await self._write(stored, closed, silence_checks(draft, said))

    async def _base(self, looked: Looked, round_: Round, pins: Pins) -> str | None:
        """The commit to build upon: not on what this very round has made already, if it has."""
        if looked.made is None:
            return looked.tip
        result = await self._compute(round_.changed(base=looked.base), pins)
        return looked.base if result.commit == looked.made else looked.tip

    async def _again(
        self, stored: Stored[Round], dataset: Dataset, last: Round | None, flagged: dict[str, str]
    ) -> None:
        round_ = stored.record
        draft = round_.changed(attempt=round_.attempt + 1, flagged={**flagged, **round_.flagged})
        log.warning("round.again", round=round_.id, attempt=draft.attempt, flagged=flagged)
        await self._close(stored, draft, dataset, last)

    # attesting

    async def _compute(self, round_: Round, pins: Pins) -> Result:
        return await self.vote(
            Task(
                repository=self._context.data.clone(round_.dataset),
                round=round_.id,
                tick=round_.tick,
                nodes=round_.nodes,
                commits=pins.commits,
                abstained=pins.abstained,
                base=round_.base,
                definition=round_.definition,
            )
        )

    async def _attest(self, stored: Stored[Round], dataset: Dataset, last: Round | None) -> None:
        round_ = stored.record
        try:
            caught = await self._unfit(stored, dataset, last)
            if caught is not None:
                await self._again(stored, dataset, last, caught)
                return
            result = await self._compute(round_, Pins(round_.commits, round_.abstained))
        except (StoreUnavailable, StoreUnknown):
            raise
        except MaoError as error:
            result = Result(none="trouble", detail=error.detail[:2000])
        await self._say(round_, result)

    async def _refuse(self, round_: Round) -> None:
        detail = "its operator has not agreed to how the dataset votes: maoctl pipeline diff, then approve"
        await self._say(round_, Result(none="trouble", detail=detail))

    async def _unfit(
        self, stored: Stored[Round], dataset: Dataset, last: Round | None
    ) -> dict[str, str] | None:
        """Why a closed round must be closed anew: who did what, if anybody did; None when it is in order."""
        round_, revision = stored.record, stored.revision
        said = await self._announced(round_)
        looked: Looked = await self._works.change(
            [dataset.name], look, self._context, dataset, round_, said, last
        )
        right = looked.pins
        caught = faults(round_, revision, right, said, self._heard.before(round_.dataset, round_.id))
        if caught or left_out(round_, revision, right, said):
            return caught
        return None if await self._base(looked, round_, right) == round_.base else {}

    async def _say(self, round_: Round, result: Result) -> None:
        """Attests a result, or says for the lack of what there is none."""
        words = NO_QUORUM + result.detail if result.none == "quorum" else result.detail
        missing = "" if result.commit is not None else (words or "it could not be computed")[:2000]
        attestation = Attestation(
            dataset=round_.dataset,
            round=round_.id,
            attempt=round_.attempt,
            commit=result.commit,
            tree=result.tree,
            missing=missing,
            attested_at=self._now(),
        )
        name = _name(round_)
        known = await self._attestations.get(name)
        if known is None:
            await self._attestations.create(name, attestation)
        else:
            await self._attestations.replace(name, attestation, known.revision)
        log.info("round.attested", round=round_.id, commit=result.commit, missing=missing)

    # delivering

    async def _deliver(self, stored: Stored[Round], dataset: Dataset, last: Round | None) -> float | None:
        round_ = stored.record
        commit = round_.commit or ""
        if len(await self._supporters(round_)) < round_.to_attest:
            await self._tell.unfounded(round_)
            await self._again(stored, dataset, last, {})
            return None
        done = await self._works.change([dataset.name], deliver, self._context, dataset, commit, round_.base)
        if done is Delivered.THERE:
            await self._write(stored, round_.changed(phase="decided", ended_at=self._now()))
            return None
        if done is Delivered.ELSEWHERE:
            await self._again(stored, dataset, last, {})
            return None
        if self._context.node in round_.attested:  # it was made here, and lost since
            await self._compute(round_, Pins(round_.commits, round_.abstained))
        return NOT_MADE

    async def _supporters(self, round_: Round) -> list[str]:
        """Nodes that attest what the round says is agreed; read anew."""
        prefix = keys.all_peers()
        records = Records(self._store, prefix, Attestation)
        names = [
            keys.attestation(node, round_.dataset, round_.id).removeprefix(prefix) for node in round_.nodes
        ]
        found = await asyncio.gather(*map(records.get, names))
        votes = zip(round_.nodes, found, strict=True)
        return [
            node
            for node, vote in votes
            if vote is not None
            and (vote.record.commit, vote.record.attempt) == (round_.commit, round_.attempt)
        ]


def _name(round_: Round) -> str:
    return f"{round_.dataset}/{round_.id}"


def last_decided(seen: Seen, round_: Round) -> Round | None:
    """The round of the dataset that was decided last, other than this, as far as nodes uphold it."""
    decided = [
        each.record
        for each in seen.rounds.values()
        if each.record.phase == "decided" and each.record.id != round_.id
        if is_upheld(each.record, seen.votes(each.record))
    ]
    return max(decided, key=place, default=None)
