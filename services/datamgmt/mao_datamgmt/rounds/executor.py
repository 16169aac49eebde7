"""Executes what `decide` says about a round; each action ends with one guarded write and can be repeated.

A write that lost its race leaves everything to the next look: the watch brings what the other has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mao_datamgmt.context import Context
from mao_datamgmt.executor import GitExecutor
from mao_shared import keys
from mao_shared.errors import MaoError, RecordUnreadable, StoreUnavailable, StoreUnknown
from mao_shared.logs import get_logger
from mao_shared.models import Announcement, Attestation, Dataset, Round
from mao_shared.reconcile import Mirror
from mao_shared.store import Check, Put, Records, Stored
from mao_shared.store.records import dump

from .compute import ComputeVote, VoteResult, VoteTask
from .decide import (
    NO_QUORUM,
    announcement_checks,
    ended_undecided,
    lacks_attestations,
    quorum_missing,
    round_order,
)
from .peer_records import FreshRead, PeerRecords, read_fresh
from .remote import (
    ClosingFaults,
    DeliveryResult,
    PinnedState,
    Pins,
    closing_faults,
    deliver_ground_truth,
    inspect_remote,
    omitted_nodes,
)
from .reporting import RoundAlarms
from .validation import is_attested, is_attested_by_voters, reset
from .view import Action, AttestRound, CloseRound, OpenRound, RecheckRound, RoundView, UpdateRound

log = get_logger(__name__)
UNATTESTED_COMMIT = "named {commit} as agreed, which no quorum has attested"
DELIVERY_RETRY = 5.0  # seconds to look again when another node has to deliver


class RoundExecutor:
    """Of one node, on rounds of the federation."""

    def __init__(
        self,
        context: Context,
        works: GitExecutor,
        rounds: Mirror[Round],
        heard: PeerRecords,
        vote: ComputeVote,
        tell: RoundAlarms,
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

    async def do(self, action: Action, dataset: Dataset, seen: RoundView) -> float | None:
        """Seconds until the round is to be looked at again, where nothing else will say so."""
        if isinstance(action, OpenRound):
            await self._open(action.round)
            return None
        stored = action.stored
        if isinstance(action, UpdateRound):
            if await self._write(stored, action.round, action.checks) and action.doubt:
                await self._tell.unfounded(stored.record, action.doubt)
            return None
        if isinstance(action, RecheckRound):
            await self._doubt(stored, dataset, seen)
            return None
        done = decided_before(seen, stored.record)
        if isinstance(action, CloseRound):
            await self._close(stored, stored.record, dataset, done)
            return None
        if isinstance(action, AttestRound):
            await (self._attest(stored, dataset, done) if action.agreed else self._refuse(stored.record))
            return None
        return await self._deliver(stored, dataset, done, seen.voters)

    # writes

    async def _open(self, round_: Round) -> None:
        records = self._rounds.records
        revision = await records.create(_name(round_), round_) or await self._open_over_garbage(round_)
        if revision is not None:
            self._rounds.note(_name(round_), round_, revision)
            log.info("round.opened", round=round_.id, nodes=round_.nodes)

    async def _open_over_garbage(self, round_: Round) -> int | None:
        """What lies in the place of the round and cannot be one must not keep it from being opened."""
        entry = await self._store.get(keys.round(round_.dataset, round_.id))
        if entry is None:
            return None
        try:
            self._rounds.records.parse(entry)
        except RecordUnreadable:
            return await self._store.replace(entry.key, dump(round_), entry.revision)
        return None

    async def _write(self, stored: Stored[Round], round_: Round, checks: Sequence[Check] = ()) -> bool:
        key = keys.round(round_.dataset, round_.id)
        guards = [Check(key, stored.revision), *checks]
        revision = await self._store.transact(guards, [Put(key, dump(round_))])
        if revision is None:
            log.info("round.race_lost", round=round_.id, wanted=round_.phase)
            return False
        self._rounds.note(_name(round_), round_, revision)
        facts = {"attempt": round_.attempt, "commit": round_.commit, "reason": round_.reason}
        log.info("round.moved", round=round_.id, phase=round_.phase, **facts)
        return True

    async def _doubt(self, stored: Stored[Round], dataset: Dataset, seen: RoundView) -> None:
        """Begins a round again that is not decided, whatever its record says."""
        round_ = stored.record
        names = sorted({*round_.nodes, *dataset.nodes})
        said, votes = await self._announced(round_, names), await self._attested(round_, names)
        anew = replace(seen, announced={round_.id: said.by}, attested={round_.id: votes.by})
        if lacks_attestations(anew, round_) and await self._write(
            stored, reset(round_, dataset, self._now())
        ):
            await self._tell.unfounded(round_, UNATTESTED_COMMIT.format(commit=(round_.commit or "")[:10]))

    # closing

    async def _announced(self, round_: Round, nodes: Sequence[str]) -> FreshRead[Announcement]:
        """Read anew: what is said of nodes that are silent must be true."""
        where = {node: keys.announcement(node, round_.dataset, round_.id) for node in nodes}
        return await read_fresh(self._store, where, Announcement)

    async def _attested(self, round_: Round, nodes: Sequence[str]) -> FreshRead[Attestation]:
        where = {node: keys.attestation(node, round_.dataset, round_.id) for node in nodes}
        return await read_fresh(self._store, where, Attestation)

    async def _look(
        self, round_: Round, dataset: Dataset, said: FreshRead[Announcement], done: DecidedBefore
    ) -> PinnedState:
        heard = self._heard.before(round_.dataset, round_.id)
        looked: PinnedState = await self._works.change(
            [dataset.name], inspect_remote, self._context, dataset, round_, said.by, done.last, heard
        )
        await self._tell.caught(round_, looked.pins.flagged)
        return looked

    async def _close(
        self, stored: Stored[Round], draft: Round, dataset: Dataset, done: DecidedBefore
    ) -> None:
        """Pins what there is; `draft`: the round as it is to be closed, but for that."""
        said = await self._announced(draft, draft.nodes)
        looked = await self._look(draft, dataset, said, done)
        pins, now = looked.pins, self._now()
        flagged = {**pins.flagged, **draft.flagged}
        checks = announcement_checks(draft, said.by, said.garbled)
        pinned = draft.changed(commits=pins.commits, abstained=pins.abstained, flagged=flagged)
        reason = quorum_missing(pinned, pins.commits, pins.abstained)
        if reason is not None:
            await self._write(stored, ended_undecided(pinned, now, reason), checks)
            return
        if done.last is not None and looked.made is None and looked.tip not in done.commits:
            await self._tell.moved_by_others(pinned, done.last.commit, looked.tip)
        base = await self._base(looked, pinned, pins)
        fresh: dict[str, object] = {"commit": None, "tree": None, "attested": [], "base": base}
        closed = pinned.changed(phase="closed", closed_by=self._context.node, closed_at=now, **fresh)
        await self._write(stored, closed, checks)

    async def _base(self, looked: PinnedState, round_: Round, pins: Pins) -> str | None:
        """The commit to build upon: not on what this very round has made already, if it has."""
        if looked.made is None:
            return looked.tip
        result = await self._compute(round_.changed(base=looked.base), pins)
        return looked.base if result.commit == looked.made else looked.tip

    async def _again(
        self, stored: Stored[Round], dataset: Dataset, done: DecidedBefore, flagged: dict[str, str]
    ) -> None:
        round_ = stored.record
        draft = round_.changed(attempt=round_.attempt + 1, flagged={**flagged, **round_.flagged})
        log.warning("round.again", round=round_.id, attempt=draft.attempt, flagged=flagged)
        await self._close(stored, draft, dataset, done)

    # attesting

    async def _compute(self, round_: Round, pins: Pins) -> VoteResult:
        return await self.vote(
            VoteTask(
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

    async def _attest(self, stored: Stored[Round], dataset: Dataset, done: DecidedBefore) -> None:
        round_ = stored.record
        try:
            caught = await self._unfit(stored, dataset, done)
            if caught is not None:
                await self._tell.caught(round_, caught)
                await self._again(stored, dataset, done, caught)
                return
            result = await self._compute(round_, Pins(round_.commits, round_.abstained))
        except (StoreUnavailable, StoreUnknown):
            raise
        except MaoError as error:
            result = VoteResult(none="trouble", detail=error.detail[:2000])
        if result.none == "trouble":
            broken = await self._works.look_after(dataset.name)
            if broken is not None:  # the clone is made anew: it is computed again, and nothing said before
                raise broken
        await self._say(round_, result)

    async def _refuse(self, round_: Round) -> None:
        detail = "its operator has not agreed to how the dataset votes: maoctl pipeline diff, then approve"
        await self._say(round_, VoteResult(none="trouble", detail=detail))

    async def _unfit(
        self, stored: Stored[Round], dataset: Dataset, done: DecidedBefore
    ) -> dict[str, str] | None:
        """Why a closed round must be closed anew: who did what, if anybody did; None when it is in order."""
        round_, revision = stored.record, stored.revision
        said = await self._announced(round_, round_.nodes)
        looked = await self._look(round_, dataset, said, done)
        right, heard = looked.pins, self._heard.before(round_.dataset, round_.id)
        found: ClosingFaults = closing_faults(round_, revision, right, said.by, heard)
        if found.wrong:
            await self._tell.unfounded(round_, f"was closed with {'; '.join(found.wrong)}")
        if found or omitted_nodes(round_, revision, right, said.by):
            return found.caught
        return None if await self._base(looked, round_, right) == round_.base else {}

    async def _say(self, round_: Round, result: VoteResult) -> None:
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
            revision = await self._attestations.create(name, attestation)
        else:
            revision = await self._attestations.replace(name, attestation, known.revision)
        if revision is not None:
            self._heard.mirror.note(f"{self._context.node}/attestations/{name}", attestation, revision)
        log.info("round.attested", round=round_.id, commit=result.commit, missing=missing)

    # delivering

    async def _deliver(
        self, stored: Stored[Round], dataset: Dataset, done: DecidedBefore, voters: set[str]
    ) -> float | None:
        round_ = stored.record
        commit = round_.commit or ""
        supporters = await self._supporters(round_)
        if not is_attested_by_voters(round_, supporters, voters):
            if len(supporters) < max(round_.to_attest, 2):  # else only who votes has changed meanwhile
                await self._tell.unfounded(round_, UNATTESTED_COMMIT.format(commit=commit[:10]))
            await self._write(stored, reset(round_, dataset, self._now()))
            return None
        went = await self._works.change(
            [dataset.name], deliver_ground_truth, self._context, dataset, commit, round_.base
        )
        if went is DeliveryResult.THERE:
            await self._write(stored, round_.changed(phase="decided", ended_at=self._now()))
            return None
        if went is DeliveryResult.ELSEWHERE:
            await self._again(stored, dataset, done, {})
            return None
        if self._context.node in round_.attested:  # it was made here, and lost since
            await self._compute(round_, Pins(round_.commits, round_.abstained))
        return DELIVERY_RETRY

    async def _supporters(self, round_: Round) -> set[str]:
        """Nodes that attest what the round says is agreed; read anew."""
        votes = (await self._attested(round_, round_.nodes)).by
        agreed = (round_.commit, round_.attempt)
        return {node for node, each in votes.items() if (each.record.commit, each.record.attempt) == agreed}


def _name(round_: Round) -> str:
    return f"{round_.dataset}/{round_.id}"


@dataclass(frozen=True)
class DecidedBefore:
    """`last`: the latest tick's round, other than the one at hand, that was decided and that nodes uphold.
    `commits`: of all such rounds; one of a tick of the past may be decided after it.
    """

    last: Round | None
    commits: frozenset[str]


def decided_before(seen: RoundView, round_: Round) -> DecidedBefore:
    """What had been decided of the dataset, as far as that is still known."""
    decided = [
        each.record
        for each in seen.rounds.values()
        if each.record.phase == "decided" and each.record.id != round_.id
        if is_attested(each.record, seen.votes(each.record))
    ]
    commits = frozenset(each.commit for each in decided if each.commit is not None)
    return DecidedBefore(max(decided, key=round_order, default=None), commits)
