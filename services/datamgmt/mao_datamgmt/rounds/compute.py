"""Computes the vote of a round in a child process, so that its memory is freed when it ends.

Run as a module, it is the child process: it reads a VoteTask as JSON from stdin and writes a VoteResult.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from mao_git import Clone, RepositoryError
from mao_shared.errors import MaoError, Unavailable
from mao_shared.models import Abstention, Record, Timestamp, VoteDefinition
from mao_shared.models.round import Oid
from mao_vote import NoQuorum, vote_round

MAX_VOTE_SECONDS = 3600.0


class VoteTask(Record):
    """Arguments of `mao_vote.vote_round`. `repository` is the path of the dataset's clone."""

    repository: Path
    round: str
    tick: Timestamp
    nodes: list[str]
    commits: dict[str, Oid]
    abstained: dict[str, Abstention]
    base: Oid | None
    definition: VoteDefinition


class VoteResult(Record):
    """A round's commit, or in `none` why there is none: too few voters (for all nodes), or a local fault."""

    commit: Oid | None = None
    tree: Oid | None = None
    none: Literal["quorum", "trouble"] | None = None
    detail: str = Field(default="", max_length=2000)


ComputeVote = Callable[[VoteTask], Awaitable[VoteResult]]


@dataclass(frozen=True)
class VoteProcesses:
    """Runs votes in child processes. `slots` limits their number, since each may need much memory."""

    slots: asyncio.Semaphore

    async def __call__(self, task: VoteTask) -> VoteResult:
        """Compute a vote. Raises Unavailable if the process ends without a result."""
        async with self.slots:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mao_datamgmt.rounds.compute",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(MAX_VOTE_SECONDS):
                    out, err = await process.communicate(task.model_dump_json().encode())
            except TimeoutError as error:
                raise _vote_failed(task, f"it took longer than {MAX_VOTE_SECONDS:.0f} s") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.communicate()  # closes its pipes
        try:
            return VoteResult.model_validate_json(out)
        except ValidationError as error:
            output = err.decode(errors="replace").strip()[-500:]
            raise _vote_failed(task, output or f"it ended with code {process.returncode}") from error


def _vote_failed(task: VoteTask, reason: str) -> Unavailable:
    return Unavailable(
        f"Round {task.round} could not be computed: {reason}",
        code="vote-broken",
        next="It is retried automatically. If it keeps failing, check free memory: maoctl doctor",
    )


def compute(task: VoteTask) -> VoteResult:
    """Compute a vote in this process. Blocking; writes objects to the clone and moves no branch."""
    try:
        clone = Clone.open(task.repository)
        vote = vote_round(
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
        return VoteResult(none="quorum", detail=error.detail[:2000])
    except (MaoError, RepositoryError) as error:
        return VoteResult(none="trouble", detail=str(error)[:2000])
    return VoteResult(commit=vote.commit, tree=vote.tree)


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process and not a service
        Path("/proc/self/oom_score_adj").write_text("1000")
    sys.stdout.write(compute(VoteTask.model_validate_json(sys.stdin.read())).model_dump_json())
