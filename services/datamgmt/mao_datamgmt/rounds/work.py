"""The process that computes one round: a Task on stdin, a Result on stdout."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import mao_git
from mao_git import TROUBLE
from mao_shared.errors import MaoError
from mao_vote.round import NoQuorum, vote_round

from .compute import Result, Task


def compute(task: Task) -> Result:
    """Blocking; writes objects to the clone and moves no branch."""
    try:
        clone = mao_git.open_clone(task.repository)
        voted = vote_round(
            clone,
            round_id=task.round,
            tick=task.tick,
            nodes=task.nodes,
            commits=task.commits,
            abstained=task.abstained,
            base=task.base,
            definition=task.definition,
        )
    except NoQuorum as error:
        return Result(none="quorum", detail=error.detail[:2000])
    except (MaoError, *TROUBLE) as error:
        return Result(none="trouble", detail=str(error)[:2000])
    return Result(commit=voted.commit, tree=voted.tree)


def _first_to_go() -> None:
    """Where files that others wrote need more memory than there is, the kernel ends this and no service."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    _first_to_go()
    sys.stdout.write(compute(Task.model_validate_json(sys.stdin.read())).model_dump_json())
