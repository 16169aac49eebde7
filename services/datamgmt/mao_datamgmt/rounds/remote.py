"""What rounds read and write at a dataset's remote: the snapshots to pin, ground truth to move. Blocking.

What a round is to pin, from what nodes have announced and what the dataset's remote has. Blocking.

Closing a round and checking how another node closed it are the same question, so both ask here.

Ground truth moved to what a round has decided, at the remote and here: forwards only. Blocking.
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

EXCLUDE_FROM_ATTEMPT = (
    3  # attempt from which on a node that changes its word is left out, so that it cannot go on for ever
)

MAX_COMMITS_SEARCHED = 10_000  # commits of ground truth that are looked through for one that a round has made

HeardCommits = Mapping[str, set[str]]  # node → the commits that it was heard to announce for a round

_TRAILER = re.compile(r"^MAO-Round: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Pins:
    """`commits` and `abstained` together name every node of the round once; `flagged`: who did what.

    What a round's record says of others in `flagged` or `closed_by` is nobody's word, and counts for nothing.
    """

    commits: dict[str, str] = field(default_factory=dict)
    abstained: dict[str, Abstention] = field(default_factory=dict)
    flagged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PinnedState:
    """`tip`: of ground truth at the remote. `made`: a commit in it that says this very round has made it."""

    pins: Pins
    tip: str | None
    made: str | None = None
    before_made: str | None = None  # the commit that `made` builds upon

    @property
    def base(self) -> str | None:
        """What to build upon: as long as nobody has shown that `made` is forged, what that was built upon."""
        return self.tip if self.made is None else self.before_made


def inspect_remote(
    context: Context,
    dataset: Dataset,
    round_: Round,
    said: AnnouncementsByNode,
    last: Round | None,
    heard: HeardCommits,
) -> PinnedState:
    """Fetches, and works out what the round is to pin.

    `last`: the round of the dataset that was decided last. `heard`: the commits that this node has heard each
    node announce. Raises MaoError while the remote is away.
    """
    brought = sync_clone(context, dataset.name, dataset.master)
    if brought.stale is not None:
        raise brought.stale
    clone = brought.clone
    tip = clone.tip(GROUND_TRUTH, remote=True)
    made = _made_by(clone, round_, tip, last)
    parent = None if made is None else clone.parent(made)
    return PinnedState(choose_pins(clone, round_, said, last, heard), tip, made, parent)


def _made_by(clone: Clone, round_: Round, tip: str | None, last: Round | None) -> str | None:
    if tip is None:
        return None
    since = None if last is None or last.tick > round_.tick else last.commit
    return clone.find_commit(
        tip, since, lambda message: round_.id in _TRAILER.findall(message), MAX_COMMITS_SEARCHED
    )


def choose_pins(
    clone: Clone, round_: Round, said: AnnouncementsByNode, last: Round | None, heard: HeardCommits
) -> Pins:
    """The commits that count, and why the other nodes have none."""
    pins = Pins(abstained=abstentions(round_, said))
    for node in round_.nodes:
        if round_.attempt >= EXCLUDE_FROM_ATTEMPT and len(heard.get(node, ())) > 1:
            words = f"it announced {len(heard[node])} commits for this one round, one after the other"
            pins.abstained[node] = Abstention(reason="rewritten", detail=words)
            pins.flagged[node] = words
        elif node in said and said[node].record.commit is not None:
            _pin_one(clone, said[node].record, node, last, pins)
    return pins


def _pin_one(clone: Clone, announced: Announcement, node: str, last: Round | None, pins: Pins) -> None:
    commit = announced.commit or ""
    try:
        kept = _branch_has(clone, node, commit)
        outdated = kept and _overtaken(clone, commit, node, last)
    except (MaoError, RepositoryError) as error:
        pins.abstained[node] = Abstention(reason="unavailable", detail=f"{commit[:10]}: {error}"[:2000])
        return
    if not kept:
        words = f"its branch does not have the commit {commit[:10]} that it announced: it was rewritten"
        pins.abstained[node] = Abstention(reason="rewritten", detail=words)
        pins.flagged[node] = words
    elif outdated and last is not None:
        words = f"its snapshot {commit[:10]} is older than the one it brought to round {last.id}"
        pins.abstained[node] = Abstention(reason="late", detail=words)
    else:
        pins.commits[node] = commit


def _branch_has(clone: Clone, node: str, commit: str) -> bool:
    tip = clone.tip(node, remote=True)
    if tip is None or not clone.has_commit(commit):
        return False
    return clone.contains(tip, commit)


def _overtaken(clone: Clone, commit: str, node: str, last: Round | None) -> bool:
    known = None if last is None else last.commits.get(node)
    if known is None or known == commit or not clone.has_commit(known):
        return False
    return clone.contains(known, commit)


@dataclass(frozen=True)
class ClosingFaults:
    """`caught`: who did what, by its own word. `wrong`: where the closing differs from what was announced."""

    caught: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.caught or self.wrong)


def closing_faults(
    round_: Round, revision: int, right: Pins, said: AnnouncementsByNode, heard: HeardCommits
) -> ClosingFaults:
    """What makes a closed round unfit to be computed: pure.

    `right`: what would be pinned now. `revision`: of the closing write, which rests on what had been
    announced. `heard`: commits that nodes were heard to announce, for one that has taken its word back.
    """
    found = ClosingFaults({node: words for node, words in right.flagged.items() if node in round_.commits})
    for node in round_.nodes:
        pinned, due, now = round_.commits.get(node), right.commits.get(node), said.get(node)
        if pinned is None and _is_misquoted(round_.abstained.get(node), right, node, now, revision):
            found.wrong.append(f"other words for {node} than it has said")
        if pinned == due or node in right.flagged or _unclear(right, node):
            continue
        if pinned is not None and _withdrew(pinned, now, revision, heard.get(node, set())):
            found.caught[node] = (
                f"it changed what it had announced, {pinned[:10]}, after the round was closed"
            )
        elif now is not None and now.revision > revision:
            continue  # it came after the closing: late
        elif not _unclear(Pins(abstained=round_.abstained), node):
            what = f"{'no commit' if pinned is None else pinned[:10]} for {node}"
            announced = "nothing" if now is None else (now.record.commit or "no commit")[:10]
            found.wrong.append(f"{what}, which announced {announced}")
    return found


def _is_misquoted(
    told: Abstention | None, right: Pins, node: str, now: Stored[Announcement] | None, revision: int
) -> bool:
    """Whether the round says of a node why it brings nothing, and the node itself has said otherwise."""
    if now is None or now.revision > revision:
        return told != NOT_ANNOUNCED
    return now.record.commit is None and told != right.abstained.get(node)


def _withdrew(pinned: str, now: Stored[Announcement] | None, revision: int, before: set[str]) -> bool:
    return pinned in before if now is None else now.revision > revision


def _unclear(pins: Pins, node: str) -> bool:
    """Whether a look at the remote, at another time or from another place, may have shown another thing."""
    return node in pins.abstained and pins.abstained[node].reason in ("rewritten", "unavailable")


def omitted_nodes(round_: Round, revision: int, right: Pins, said: AnnouncementsByNode) -> list[str]:
    """Nodes that a closed round leaves out though they had announced what can be had: pure."""
    due = [node for node in right.commits if node in said and said[node].revision < revision]
    return [node for node in due if node not in round_.commits]


PUSH_ATTEMPTS = 3

PUSH_PAUSE = 0.05  # seconds


class DeliveryResult(StrEnum):
    """`ELSEWHERE`: ground truth was moved to what this commit is not built upon: it can never get there."""

    THERE = "there"
    ELSEWHERE = "elsewhere"
    NOT_MADE = "not-made"  # the commit is not in this clone


def deliver_ground_truth(context: Context, dataset: Dataset, commit: str, base: str | None) -> DeliveryResult:
    """Pushes a round's commit as ground truth if it is not there. Raises MaoError with the remote away."""
    lost = None
    for attempt in range(PUSH_ATTEMPTS):
        brought = sync_clone(context, dataset.name, dataset.master)
        if brought.stale is not None:
            raise brought.stale
        clone = brought.clone
        tip = clone.tip(GROUND_TRUTH, remote=True)
        if tip is not None and clone.has_commit(commit) and clone.contains(tip, commit):
            _take_over(clone, tip)
            return DeliveryResult.THERE
        if tip != base:
            return DeliveryResult.ELSEWHERE
        if not clone.has_commit(commit):
            return DeliveryResult.NOT_MADE
        lost = _push(context, clone, commit)
        if lost is None:
            return DeliveryResult.THERE
        time.sleep(PUSH_PAUSE * 2**attempt)
    raise push_lost(clone, [GROUND_TRUTH], lost or RemoteMoved("it was moved"), was_moved=False)


def _push(context: Context, clone: Clone, commit: str) -> RemoteMoved | None:
    """Why it was not moved. Whatever happens, our branch says what the remote has."""
    ours = clone.tip(GROUND_TRUTH)
    if ours != commit and not clone.move_branch(GROUND_TRUTH, commit, ours):
        return RemoteMoved("the branch here was moved by another process")
    try:
        clone.push({GROUND_TRUTH: commit}, context.access)
    except RemoteMoved as moved:
        return moved
    finally:
        clone.reset_to_remote(GROUND_TRUTH)
    return None


def _take_over(clone: Clone, tip: str) -> None:
    if clone.tip(GROUND_TRUTH) != tip:
        clone.reset_to_remote(GROUND_TRUTH)
