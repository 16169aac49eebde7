"""Finds decided rounds in a repository: the commits on ground truth that rounds made."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mao_git import Clone, LogEntry
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import GROUND_TRUTH
from mao_shared.models.evidence import DecidedRound, Evidence, RoundPage, RoundSummary
from mao_shared.models.round import VoteDefinition
from mao_shared.store.protocol import cursor_invalid

from .evidence import TRAILER, evidence_path, load_evidence

_MARKED = re.compile(rf"^{TRAILER}: ([A-Za-z0-9._-]{{1,200}})$", re.MULTILINE)


def walk_rounds(clone: Clone, tip: str) -> Iterator[tuple[str, str]]:
    """Yield the ids and commits of the rounds up to `tip`, newest first."""
    for entry in clone.first_parents(tip):
        if round_id := made_by(clone, entry):
            yield round_id, entry.commit


def made_by(clone: Clone, entry: LogEntry) -> str | None:
    """Return the round that made a commit: its trailer names the round and it adds the evidence."""
    round_id = round_mark(entry)
    if round_id is None:
        return None
    evidence = clone.entry(entry.commit, evidence_path(round_id))
    if evidence is None:
        return None
    parent = entry.parents[0] if entry.parents else None
    if parent is None or not clone.has_commit(parent):  # the clone is shallow
        return round_id
    before = clone.entry(parent, evidence_path(round_id))
    return None if before is not None and before.id == evidence.id else round_id


def round_mark(entry: LogEntry) -> str | None:
    """Return the round that a commit's trailer names."""
    found = _MARKED.findall(entry.message)
    return found[-1] if found else None


def read_evidence(clone: Clone, commit: str, round_id: str) -> DecidedRound:
    """Read a round's evidence from its commit. Raises InvalidInput if it is absent or unreadable."""
    try:
        content = clone.read_file(commit, evidence_path(round_id))
        return DecidedRound(commit=commit, evidence=load_evidence(content))
    except (NotFound, ValueError) as error:
        reason = "it is absent" if isinstance(error, NotFound) else str(error).splitlines()[0]
        raise InvalidInput(
            f"The evidence of round {round_id} in commit {commit[:10]} cannot be read: {reason}.",
            code="evidence-unreadable",
            next=f"Inspect it: git show {commit[:10]}:{evidence_path(round_id)}",
        ) from error


def list_rounds(clone: Clone, tip: str, limit: int, cursor: str | None = None) -> RoundPage:
    """Return a page of rounds, newest first. `cursor` is the commit of the page's first round."""
    if cursor is not None and not clone.is_commit(cursor):
        raise cursor_invalid()
    items: list[RoundSummary] = []
    for round_id, commit in walk_rounds(clone, cursor or tip):
        if len(items) == limit:
            return RoundPage(items=items, cursor=commit)
        items.append(read_evidence(clone, commit, round_id).summary())
    return RoundPage(items=items)


def latest_rounds(clone: Clone, tip: str, max_rounds: int) -> Iterator[DecidedRound]:
    """Yield the newest `max_rounds` rounds with their evidence, newest first."""
    for number, (round_id, commit) in enumerate(walk_rounds(clone, tip)):
        if number == max_rounds:
            return
        yield read_evidence(clone, commit, round_id)


def newest_evidence(clone: Clone) -> Evidence | None:
    """Return the evidence of the newest round of ground truth; None without one that can be read."""
    try:
        newest = next(latest_rounds(clone, clone.resolve(GROUND_TRUTH), 1), None)
    except (NotFound, InvalidInput):  # no ground truth yet, or evidence that cannot be read
        return None
    return None if newest is None else newest.evidence


def newest_definition(clone: Clone) -> VoteDefinition:
    """Return the definition by which the newest round was decided, the default if there is none."""
    evidence = newest_evidence(clone)
    return VoteDefinition() if evidence is None else evidence.definition


def find_round(clone: Clone, tip: str, prefix: str | None) -> DecidedRound:
    """Find a round by its id or an unambiguous prefix, or the newest if that is None.

    Raises NotFound, or InvalidInput if the prefix is ambiguous.
    """
    found: list[tuple[str, str]] = []
    for round_id, commit in walk_rounds(clone, tip):
        if prefix is None or round_id == prefix:
            return read_evidence(clone, commit, round_id)
        if round_id.startswith(prefix):
            found.append((round_id, commit))
    if len(found) == 1:
        return read_evidence(clone, found[0][1], found[0][0])
    if found:
        raise InvalidInput(
            f"{len(found)} rounds begin with {prefix!r}: {', '.join(round_id for round_id, _ in found[:5])}"
            f"{' …' if len(found) > 5 else ''}.",
            code="round-ambiguous",
            next="Give a longer prefix of the id.",
        )
    raise NotFound(
        "No round is decided yet." if prefix is None else f"No round {prefix!r} has been decided here.",
        code="round-not-found",
        next="List them: maoctl vote list. A round that is open has no evidence yet.",
    )
