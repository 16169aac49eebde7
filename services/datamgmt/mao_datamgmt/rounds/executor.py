"""Executes the actions of `decide`. Each ends with one guarded write and can be repeated.

If a write loses a race, the next pass decides again: the watch delivers what the other node wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mao_datamgmt.context import Context
from mao_datamgmt.git_executor import GitExecutor
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
DELIVERY_RETRY_SECONDS = 5.0  # until the next check if another node has to deliver
NOT_AGREED = "its operator has not agreed to how the dataset votes: maoctl pipeline diff, then approve"


@dataclass(frozen=True)
class DecidedRounds:
    """The other decided and attested rounds of a dataset: the `last` one by tick, and the `commits` of all.

    A round of an earlier tick may have been decided later, so `last` need not be the tip of ground truth.
    """

    last: Round | None
    commits: frozenset[str]


def decided_before(view: RoundView, round_: Round) -> DecidedRounds:
    """Return the dataset's other decided rounds whose records still exist. Pure."""
    decided = [
        stored.record
        for stored in view.rounds.values()
        if stored.record.phase == "decided" and stored.record.id != round_.id
        if is_attested(stored.record, view.attestations(stored.record))
    ]
    commits = frozenset(other.commit for other in decided if other.commit is not None)
    return DecidedRounds(max(decided, key=round_order, default=None), commits)


@dataclass(frozen=True)
class _RoundTask:
    """A stored round to work on."""

    stored: Stored[Round]
    dataset: Dataset
    before: DecidedRounds

    @property
    def round(self) -> Round:
        return self.stored.record


class RoundExecutor:
    """Executes one node's actions on rounds. `compute` computes a vote; tests may replace it."""

    def __init__(
        self,
        context: Context,
        git: GitExecutor,
        rounds: Mirror[Round],
        peers: PeerRecords,
        compute: ComputeVote,
        alarms: RoundAlarms,
    ) -> None:
        self._context = context
        self._git = git
        self._rounds = rounds
        self._peers = peers
        self.compute = compute
        self._alarms = alarms
        self._store = rounds.records.store
        prefix = f"{keys.peer_root(context.node)}attestations/"
        self._attestations = Records(self._store, prefix, Attestation)

    def _now(self) -> datetime:
        return self._context.clock.now()

    async def execute(self, action: Action, dataset: Dataset, view: RoundView) -> float | None:
        """Execute an action; return the seconds until the next pass if no change will trigger it."""
        if isinstance(action, OpenRound):
            await self._open(action.round)
            return None
        stored = action.stored
        if isinstance(action, UpdateRound):
            if await self._write(stored, action.round, action.checks) and action.fault:
                await self._alarms.false_record(stored.record, action.fault)
            return None
        if isinstance(action, RecheckRound):
            await self._recheck(stored, dataset, view)
            return None
        task = _RoundTask(stored, dataset, decided_before(view, stored.record))
        if isinstance(action, CloseRound):
            await self._close(task, task.round)
            return None
        if isinstance(action, AttestRound) and action.agreed:
            await self._attest(task)
            return None
        if isinstance(action, AttestRound):
            await self._publish(task.round, VoteResult(none="trouble", detail=NOT_AGREED))
            return None
        return await self._deliver(task, view.voters)

    # writing

    async def _open(self, round_: Round) -> None:
        revision = await self._rounds.records.create(_name(round_), round_)
        revision = revision or await self._replace_unreadable(round_)
        if revision is not None:
            self._rounds.note(_name(round_), round_, revision)
            log.info("round.opened", round=round_.id, nodes=round_.nodes)

    async def _replace_unreadable(self, round_: Round) -> int | None:
        """Replace an unreadable record under the round's key, so that the round can be opened."""
        entry = await self._store.get(keys.round(round_.dataset, round_.id))
        if entry is None:
            return None
        try:
            self._rounds.records.parse(entry)
        except RecordUnreadable:
            return await self._store.replace(entry.key, dump(round_), entry.revision)
        return None

    async def _write(self, stored: Stored[Round], round_: Round, checks: Sequence[Check] = ()) -> bool:
        """Write a round; return False if another node has changed it meanwhile."""
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

    async def _recheck(self, stored: Stored[Round], dataset: Dataset, view: RoundView) -> None:
        """Reset a round that is recorded as decided without being attested."""
        round_ = stored.record
        nodes = sorted({*round_.nodes, *dataset.nodes})
        # Retention removes a node's announcement before its attestation. So a node whose attestation has been
        # removed is not taken for one that never attested: it has no announcement any more either.
        attested = await self._attested(round_, nodes)
        announced = await self._announced(round_, nodes)
        fresh = replace(view, announced={round_.id: announced.by}, attested={round_.id: attested.by})
        if not lacks_attestations(fresh, round_):
            return
        if await self._write(stored, reset(round_, dataset, self._now())):
            await self._alarms.false_record(round_, _unattested(round_))

    # reading from the store

    async def _announced(self, round_: Round, nodes: Sequence[str]) -> FreshRead[Announcement]:
        keys_of = {node: keys.announcement(node, round_.dataset, round_.id) for node in nodes}
        return await read_fresh(self._store, keys_of, Announcement)

    async def _attested(self, round_: Round, nodes: Sequence[str]) -> FreshRead[Attestation]:
        keys_of = {node: keys.attestation(node, round_.dataset, round_.id) for node in nodes}
        return await read_fresh(self._store, keys_of, Attestation)

    # closing

    async def _inspect(
        self, task: _RoundTask, round_: Round, announced: FreshRead[Announcement]
    ) -> PinnedState:
        """Return the state that the round has to pin, and raise alarms about violations."""
        state: PinnedState = await self._git.write(
            [task.dataset.name],
            inspect_remote,
            self._context,
            task.dataset,
            round_,
            announced.by,
            task.before.last,
            self._peers.announced_commits(round_.dataset, round_.id),
        )
        await self._alarms.violations(round_, state.pins.flagged)
        return state

    async def _close(self, task: _RoundTask, draft: Round) -> None:
        """Close a round with the available snapshots. `draft` is the closed round without its pins."""
        announced = await self._announced(draft, draft.nodes)
        state = await self._inspect(task, draft, announced)
        pins, now = state.pins, self._now()
        checks = announcement_checks(draft, announced.by, announced.unreadable)
        flagged = {**pins.flagged, **draft.flagged}
        pinned = draft.changed(commits=pins.commits, abstained=pins.abstained, flagged=flagged)
        reason = quorum_missing(pinned, pins.commits, pins.abstained)
        if reason is not None:
            await self._write(task.stored, ended_undecided(pinned, now, reason), checks)
            return
        last = task.before.last
        if last is not None and state.made is None and state.tip not in task.before.commits:
            await self._alarms.moved_by_others(pinned, last.commit, state.tip)
        closed = pinned.changed(
            phase="closed",
            closed_by=self._context.node,
            closed_at=now,
            base=await self._base(state, pinned, pins),
            commit=None,
            tree=None,
            attested=[],
        )
        await self._write(task.stored, closed, checks)

    async def _base(self, state: PinnedState, round_: Round, pins: Pins) -> str | None:
        """Return the commit to build on, which is never one that this round made earlier."""
        if state.made is None:
            return state.tip
        result = await self._compute(round_.changed(base=state.base), pins)
        return state.base if result.commit == state.made else state.tip

    async def _close_again(self, task: _RoundTask, flagged: dict[str, str]) -> None:
        round_ = task.round
        draft = round_.changed(attempt=round_.attempt + 1, flagged={**flagged, **round_.flagged})
        log.warning("round.again", round=round_.id, attempt=draft.attempt, flagged=flagged)
        await self._close(task, draft)

    # attesting

    async def _compute(self, round_: Round, pins: Pins) -> VoteResult:
        return await self.compute(
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

    async def _attest(self, task: _RoundTask) -> None:
        round_ = task.round
        try:
            violations = await self._closing_violations(task)
            if violations is not None:
                await self._alarms.violations(round_, violations)
                await self._close_again(task, violations)
                return
            result = await self._compute(round_, Pins(round_.commits, round_.abstained))
        except (StoreUnavailable, StoreUnknown):
            raise
        except MaoError as error:
            result = VoteResult(none="trouble", detail=error.detail[:2000])
        if result.none == "trouble":
            broken = await self._git.inspect(task.dataset.name)
            if broken is not None:  # nothing is published; it is computed again after the rebuild
                raise broken
        await self._publish(round_, result)

    async def _closing_violations(self, task: _RoundTask) -> dict[str, str] | None:
        """Return violations by node (may be empty) if a round must be closed again, None if it is valid."""
        round_, revision = task.round, task.stored.revision
        announced = await self._announced(round_, round_.nodes)
        state = await self._inspect(task, round_, announced)
        commits = self._peers.announced_commits(round_.dataset, round_.id)
        found = closing_faults(round_, revision, state.pins, announced.by, commits)
        if found.errors:
            await self._alarms.false_record(round_, f"was closed with {'; '.join(found.errors)}")
        if found or omitted_nodes(round_, revision, state.pins, announced.by):
            return found.violations
        return None if await self._base(state, round_, state.pins) == round_.base else {}

    async def _publish(self, round_: Round, result: VoteResult) -> None:
        """Attest a result, or publish why there is none."""
        reason = NO_QUORUM + result.detail if result.none == "quorum" else result.detail
        missing = "" if result.commit is not None else (reason or "it could not be computed")[:2000]
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
        revision = await self._attestations.put(name, attestation)
        self._peers.mirror.note(f"{self._context.node}/attestations/{name}", attestation, revision)
        log.info("round.attested", round=round_.id, commit=result.commit, missing=missing)

    # delivering

    async def _deliver(self, task: _RoundTask, voters: set[str]) -> float | None:
        round_ = task.round
        attested = (await self._attested(round_, round_.nodes)).by
        expected = (round_.commit, round_.attempt)
        supporters = {
            node
            for node, stored in attested.items()
            if (stored.record.commit, stored.record.attempt) == expected
        }
        if not is_attested_by_voters(round_, supporters, voters):
            if len(supporters) < max(round_.to_attest, 2):  # otherwise only the voters have changed meanwhile
                await self._alarms.false_record(round_, _unattested(round_))
            await self._write(task.stored, reset(round_, task.dataset, self._now()))
            return None
        delivery = await self._git.write(
            [task.dataset.name],
            deliver_ground_truth,
            self._context,
            task.dataset,
            round_.commit or "",
            round_.base,
        )
        if delivery is DeliveryResult.THERE:
            await self._write(task.stored, round_.changed(phase="decided", ended_at=self._now()))
            return None
        if delivery is DeliveryResult.ELSEWHERE:
            await self._close_again(task, {})
            return None
        if self._context.node in round_.attested:  # it was computed here and lost since
            await self._compute(round_, Pins(round_.commits, round_.abstained))
        return DELIVERY_RETRY_SECONDS


def _name(round_: Round) -> str:
    return f"{round_.dataset}/{round_.id}"


def _unattested(round_: Round) -> str:
    return f"named {(round_.commit or '')[:10]} as agreed, which no quorum has attested"
