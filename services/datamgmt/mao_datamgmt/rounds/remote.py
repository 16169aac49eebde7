"""Reads the snapshots to pin from a dataset's remote, and pushes ground truth to it. Blocking.

Closing a round and checking how another node closed it both use `inspect_remote`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import sync_clone
from mao_datamgmt.datasets.delivery import push_lost
from mao_git import Clone, RemoteMoved, RepositoryError
from mao_shared.errors import MaoError
from mao_shared.models import GROUND_TRUTH, Abstention, Announcement, Dataset, Round
from mao_shared.store import Stored

from .decide import NOT_ANNOUNCED, abstentions
from .peer_records import AnnouncementsByNode

EXCLUDE_FROM_ATTEMPT = 3  # from then on a node that changes its announcement is excluded
MAX_COMMITS_SEARCHED = 10_000  # of ground truth, for the commit of a round
MAX_PUSH_ATTEMPTS = 3
PUSH_RETRY_SECONDS = 0.05
AnnouncedCommits = Mapping[str, set[str]]  # node → all commits that this node saw it announce for a round
_TRAILER = re.compile(r"^MAO-Round: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Pins:
    """The commits of a round. `commits` and `abstained` together name each node once; `flagged`: violations.

    `flagged` and `closed_by` in the round's record are not used, since any member can write them.
    """

    commits: dict[str, str] = field(default_factory=dict)
    abstained: dict[str, Abstention] = field(default_factory=dict)
    flagged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PinnedState:
    """The remote's state. `tip` is ground truth's; `made` a commit in it that claims to be this round's."""

    pins: Pins
    tip: str | None
    made: str | None = None
    made_from: str | None = None  # the parent of `made`

    @property
    def base(self) -> str | None:
        """The commit to build on: the parent of `made`, unless `made` is found to be forged."""
        return self.tip if self.made is None else self.made_from


def inspect_remote(
    context: Context,
    dataset: Dataset,
    round_: Round,
    announced: AnnouncementsByNode,
    last: Round | None,
    commits: AnnouncedCommits,
) -> PinnedState:
    """Fetch, and find what the round has to pin. Raises MaoError while the remote is unavailable.

    `last` is the dataset's latest decided round.
    """
    synced = sync_clone(context, dataset.name, dataset.master)
    if synced.stale is not None:
        raise synced.stale
    clone = synced.clone
    tip = clone.tip(GROUND_TRUTH, remote=True)
    made = None
    if tip is not None:
        since = None if last is None or last.tick > round_.tick else last.commit

        def is_of_round(message: str) -> bool:
            return round_.id in _TRAILER.findall(message)

        made = clone.find_commit(tip, since, is_of_round, MAX_COMMITS_SEARCHED)
    parent = None if made is None else clone.parent(made)
    return PinnedState(choose_pins(clone, round_, announced, last, commits), tip, made, parent)


def choose_pins(
    clone: Clone, round_: Round, announced: AnnouncementsByNode, last: Round | None, commits: AnnouncedCommits
) -> Pins:
    """Choose the commits that take part in the vote, and the reasons why other nodes abstain."""
    pins = Pins(abstained=abstentions(round_, announced))
    for node in round_.nodes:
        if round_.attempt >= EXCLUDE_FROM_ATTEMPT and len(commits.get(node, ())) > 1:
            violation = f"it announced {len(commits[node])} commits for this one round, one after the other"
            pins.abstained[node] = Abstention(reason="rewritten", detail=violation)
            pins.flagged[node] = violation
        elif node in announced and announced[node].record.commit is not None:
            _pin_node(clone, announced[node].record, node, last, pins)
    return pins


def _pin_node(clone: Clone, announced: Announcement, node: str, last: Round | None, pins: Pins) -> None:
    commit = announced.commit or ""
    try:
        tip = clone.tip(node, remote=True)
        is_there = tip is not None and clone.has_commit(commit) and clone.contains(tip, commit)
        known = None if last is None else last.commits.get(node)
        is_outdated = (
            is_there
            and known not in (None, commit)
            and clone.has_commit(known)
            and clone.contains(known, commit)
        )
    except (MaoError, RepositoryError) as error:
        pins.abstained[node] = Abstention(reason="unavailable", detail=f"{commit[:10]}: {error}"[:2000])
        return
    if not is_there:
        violation = f"its branch does not have the commit {commit[:10]} that it announced: it was rewritten"
        pins.abstained[node] = Abstention(reason="rewritten", detail=violation)
        pins.flagged[node] = violation
    elif is_outdated and last is not None:
        detail = f"its snapshot {commit[:10]} is older than the one it submitted to round {last.id}"
        pins.abstained[node] = Abstention(reason="late", detail=detail)
    else:
        pins.commits[node] = commit


@dataclass(frozen=True)
class ClosingFaults:
    """The faults of a closing: `violations` by node, from its announcements, and `errors` of the closing."""

    violations: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.violations or self.errors)


def closing_faults(
    round_: Round, revision: int, expected: Pins, announced: AnnouncementsByNode, commits: AnnouncedCommits
) -> ClosingFaults:
    """Return the reasons why a closed round must not be computed. Pure.

    Args:
        revision: of the write that closed the round; later announcements do not count.
        expected: the pins if the round were closed now.
        commits: all commits ever announced, for nodes that have withdrawn their announcement.
    """
    found = ClosingFaults(
        {node: violation for node, violation in expected.flagged.items() if node in round_.commits}
    )
    for node in round_.nodes:
        pinned, expected_commit, current = (
            round_.commits.get(node),
            expected.commits.get(node),
            announced.get(node),
        )
        if pinned is None and _is_misquoted(round_.abstained.get(node), expected, node, current, revision):
            found.errors.append(f"another abstention for {node} than it has announced")
        if pinned == expected_commit or node in expected.flagged or _is_unclear(expected, node):
            continue
        withdrew = pinned in commits.get(node, ()) if current is None else current.revision > revision
        if pinned is not None and withdrew:
            found.violations[node] = (
                f"it changed what it had announced, {pinned[:10]}, after the round was closed"
            )
        elif current is not None and current.revision > revision:
            continue  # announced after the closing: late
        elif not _is_unclear(Pins(abstained=round_.abstained), node):
            closed_with = f"{'no commit' if pinned is None else pinned[:10]} for {node}"
            now_announced = "nothing" if current is None else (current.record.commit or "no commit")[:10]
            found.errors.append(f"{closed_with}, which announced {now_announced}")
    return found


def _is_misquoted(
    recorded: Abstention | None,
    expected: Pins,
    node: str,
    current: Stored[Announcement] | None,
    revision: int,
) -> bool:
    """True if the abstention that a round records for a node differs from what the node announced."""
    if current is None or current.revision > revision:
        return recorded != NOT_ANNOUNCED
    return current.record.commit is None and recorded != expected.abstained.get(node)


def _is_unclear(pins: Pins, node: str) -> bool:
    """True if the remote may have had another state at another time or for another node."""
    return node in pins.abstained and pins.abstained[node].reason in ("rewritten", "unavailable")


def omitted_nodes(round_: Round, revision: int, expected: Pins, announced: AnnouncementsByNode) -> list[str]:
    """Return nodes that a closed round omits although their announced commit is available. Pure."""
    expected_commit = [
        node for node in expected.commits if node in announced and announced[node].revision < revision
    ]
    return [node for node in expected_commit if node not in round_.commits]


class DeliveryResult(StrEnum):
    """The result of a delivery. `ELSEWHERE`: ground truth is at a commit on which this one is not built."""

    THERE = "there"
    ELSEWHERE = "elsewhere"
    NOT_MADE = "not-made"  # the commit is not in this clone


def deliver_ground_truth(context: Context, dataset: Dataset, commit: str, base: str | None) -> DeliveryResult:
    """Push a round's commit as ground truth unless the remote has it. Raises MaoError."""
    lost = None
    for attempt in range(MAX_PUSH_ATTEMPTS):
        synced = sync_clone(context, dataset.name, dataset.master)
        if synced.stale is not None:
            raise synced.stale
        clone = synced.clone
        tip = clone.tip(GROUND_TRUTH, remote=True)
        if tip is not None and clone.has_commit(commit) and clone.contains(tip, commit):
            if clone.tip(GROUND_TRUTH) != tip:
                clone.reset_to_remote(GROUND_TRUTH)
            return DeliveryResult.THERE
        if tip != base:
            return DeliveryResult.ELSEWHERE
        if not clone.has_commit(commit):
            return DeliveryResult.NOT_MADE
        lost = _push(context, clone, commit)
        if lost is None:
            return DeliveryResult.THERE
        time.sleep(PUSH_RETRY_SECONDS * 2**attempt)
    raise push_lost(clone, [GROUND_TRUTH], lost or RemoteMoved("it was moved"), was_moved=False)


def _push(context: Context, clone: Clone, commit: str) -> RemoteMoved | None:
    """Push ground truth; return why it was not moved. The local branch is then reset to the remote's."""
    local_tip = clone.tip(GROUND_TRUTH)
    if local_tip != commit and not clone.move_branch(GROUND_TRUTH, commit, local_tip):
        return RemoteMoved("the branch here was moved by another process")
    try:
        clone.push({GROUND_TRUTH: commit}, context.access)
    except RemoteMoved as moved:
        return moved
    finally:
        clone.reset_to_remote(GROUND_TRUTH)
    return None
