"""Commits on ground truth that no round made: somebody's own, which no vote stands behind."""

from __future__ import annotations

from pydantic import BaseModel, Field

import mao_git
from mao_git import Clone

from .round_history import made_by

_SHOWN = 100  # commits


class Strays(BaseModel):
    """`after` the newest round, `between` rounds; `before` the first round a node alone made them, which is
    no fault. `commits`: the newest of those that are a fault, at most 100."""

    tip: str
    newest_round: str
    after: int
    between: int
    before: int
    commits: list[str] = Field(default_factory=list)

    @property
    def fault(self) -> str | None:
        """In words; None when each commit since the first round was made by one."""
        many = self.after + self.between
        if not many:
            return None
        commits = "1 commit on ground-truth was" if many == 1 else f"{many} commits on ground-truth were"
        where = f"newest round is {self.newest_round}, tip is {self.tip[:10]}"
        return f"{commits} made by no round; {where}"


def find_strays(clone: Clone, tip: str) -> Strays | None:
    """Looks at the whole line that led to `tip`; None where no round is decided yet."""
    newest: str | None = None
    since: list[str] = []  # commits since the last round that was met, on the way back
    after, between, faulty = 0, 0, list[str]()
    for entry in mao_git.walk_line(clone, tip):
        found = made_by(clone, entry)
        if found is None:
            since.append(entry.commit)
            continue
        if newest is None:
            newest, after = found, len(since)
        else:
            between += len(since)
        faulty += since[: max(0, _SHOWN - len(faulty))]
        since = []
    if newest is None:
        return None
    return Strays(
        tip=tip, newest_round=newest, after=after, between=between, before=len(since), commits=faulty
    )
