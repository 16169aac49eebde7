"""Computing a round beside the loop, in a process of its own: what a vote takes in memory goes with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from mao_shared.errors import Unavailable
from mao_shared.models import Abstention, Record, Timestamp, VoteDefinition
from mao_shared.models.models_round import Oid

TIME_LIMIT = 3600.0  # seconds


class Task(Record):
    """What `voting.vote_round` needs. `repository`: path of the dataset's clone."""

    repository: Path
    round: str
    tick: Timestamp
    nodes: list[str]
    commits: dict[str, Oid]
    abstained: dict[str, Abstention]
    base: Oid | None
    definition: VoteDefinition


class Result(Record):
    """`none`: why there is no commit: too few voices (the same for everybody), or trouble here."""

    commit: Oid | None = None
    tree: Oid | None = None
    none: Literal["quorum", "trouble"] | None = None
    detail: str = Field(default="", max_length=2000)


Vote = Callable[[Task], Awaitable[Result]]


@dataclass(frozen=True)
class Votes:
    """`at_once`: further ones wait their turn, since each may take much memory."""

    turns: asyncio.Semaphore

    async def __call__(self, task: Task) -> Result:
        """Raises Unavailable when the process ends without an answer."""
        async with self.turns:
            return await _in_a_process(task)


async def _in_a_process(task: Task) -> Result:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mao_datamgmt.rounds.work",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIME_LIMIT):
            out, err = await process.communicate(task.model_dump_json().encode())
    except TimeoutError as error:
        raise _broken(task, f"it took longer than {TIME_LIMIT:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # its pipes are to be closed as well
    try:
        return Result.model_validate_json(out)
    except ValidationError as error:
        said = err.decode(errors="replace").strip()[-500:]
        raise _broken(task, said or f"it ended with code {process.returncode}") from error


def _broken(task: Task, why: str) -> Unavailable:
    return Unavailable(
        f"Round {task.round} could not be computed: {why}",
        code="vote-broken",
        next="It is tried again. If it stays so: is there memory left? See maoctl doctor.",
    )
