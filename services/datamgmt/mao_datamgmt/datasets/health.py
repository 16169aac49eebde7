"""Conditions of the node's data: full disks, commits not pushed for long, rewound branches, unusable

What is wrong with the node's data for so long that a person should know: waiting commits, a full disk.

Tells when a branch at a remote went back: ground truth, or another node's, as after a restored backup.

Every node that fetches keeps what it has seen (`repository/known.py`), so that it is known here as well, and
not lost. This node's own branch is told by its push, which stops there (`deliver.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.disk import MIB, DiskSpace, nearly_short, rooms, shortage
from mao_datamgmt.executor import GitExecutor
from mao_git import Clone, RepositoryError, RewoundBranch
from mao_git.remotes import access
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH, format_time
from mao_shared.reconcile import Guard, every
from mao_shared.reconcile.controller import WorkQueue

from .clones import dataset_names
from .push import PushFailure

log = get_logger(__name__)

DISK_EVERY = 30.0  # seconds between two looks at the disk: some system calls

DISK_EVERY_BAD = (
    2.0  # while something waits for room: what waits goes on within seconds, and so says readiness
)

OUTBOX_EVERY = 300.0  # seconds between two looks at all outboxes; a push that gets through is told at once


class HealthChecks:
    """Keeps the conditions `disk`, `unpushed` and `ssh-key` in step, and `branch-went-back` (`backwards`).

    `outbox_age`: how old a commit may get that its remote lacks; `troubles`: why pushes did not get through.
    """

    def __init__(
        self,
        context: Context,
        works: GitExecutor,
        conditions: Conditions,
        outbox_age: timedelta,
        troubles: Mapping[str, PushFailure],
    ) -> None:
        self.backwards = RewoundBranches(context, works, conditions)
        self._conditions = conditions
        self._context = context
        self._works = works
        self._outbox_age = outbox_age
        self._troubles = troubles

    async def run(self) -> None:
        """Looks now and then, for ever."""
        await asyncio.gather(
            every(0.0, self.look_at_disk, name="disk", conditions=self._conditions),
            every(OUTBOX_EVERY, self.look_at_outboxes, name="outboxes", conditions=self._conditions),
            every(DISK_EVERY, self.look_at_ssh_keys, name="ssh-keys", conditions=self._conditions),
            self.backwards.run(),
        )

    async def look_at_disk(self) -> float:
        """One look at every file system that the node writes to; seconds until the next."""
        found = await self._works.read(rooms, self._context.data.root)
        waits = [self._judge(folder, room) for folder, room in found.items()]
        self._conditions.clear_all_but("disk", found)
        return DISK_EVERY_BAD if any(waits) else DISK_EVERY

    def _judge(self, folder: str, room: DiskSpace) -> bool:
        """Whether something waits for room there."""
        where = f"the folder {folder} of the data directory" if folder else "the data directory"
        left = f"{room.free / MIB:.0f} MiB free"
        if (short := shortage(room, self._context.min_free)) is not None:
            mend = (
                "Free space (or inodes) where it lies, or lower MAO_MIN_FREE; what waits goes on by itself."
                if room.writable
                else "See that it is mounted for writing and belongs to the node's user (MAO_DATA_DIR)."
            )
            stops = "What is written there waits" if folder else "No run starts and nothing is published"
            detail = f"{stops}: on the disk of {where} {short}."
            self._conditions.report("disk", folder, detail=detail, next_step=mend, state="failed")
            return True
        if (low := nearly_short(room, self._context.min_free)) is not None:
            mend = "Free space (or inodes) before runs have to wait for it."
            self._conditions.report(
                "disk", folder, detail=f"On the disk of {where} {low} ({left}).", next_step=mend
            )
        else:
            self._conditions.clear("disk", folder)
        return False

    async def look_at_ssh_keys(self) -> None:
        """One look at what lies in the key directory."""
        found = await self._works.read(access.key_faults, self._context.access.key_dir)
        for fault in found:
            self._conditions.report("ssh-key", fault.name, detail=f"{fault.words}.", next_step=fault.next)
        self._conditions.clear_all_but("ssh-key", [fault.name for fault in found])

    async def look_at_outboxes(self) -> None:
        """One look at what waits to be pushed."""
        now = self._context.clock.now()
        late = []
        for dataset, waiting, since in await self._works.read(unpushed_since, self._context):
            if now - since > self._outbox_age:
                late.append(dataset)
                self._conditions.report(
                    "unpushed",
                    dataset,
                    detail=f"{waiting} commits of dataset {dataset} wait to be pushed, the oldest since "
                    f"{format_time(since)}{self._why(dataset)}.",
                    next_step=f"Why: maoctl dataset get {dataset}; try now: maoctl dataset push {dataset}.",
                )
        self._conditions.clear_all_but("unpushed", late)

    def _why(self, dataset: str) -> str:
        trouble = self._troubles.get(dataset)
        if trouble is None:
            return ""
        at = format_time(trouble.next_try_at.replace(microsecond=0))
        return f"; the last of {trouble.tries} tries failed ({trouble.failure.code}), the next is at {at}"


def unpushed_since(context: Context) -> list[tuple[str, int, datetime]]:
    """Datasets with commits that their remotes lack: how many, and when the oldest was made. Blocking."""
    found = []
    for name in dataset_names(context.data):
        try:
            count, since = Clone.open(context.data.clone(name)).unpushed(context.node)
        except (MaoError, RepositoryError) as error:  # one broken clone must not hide the others
            log.warning("watch.clone_unusable", dataset=name, error=str(error))
            continue
        if since is not None:
            found.append((name, count, since))
    return found


REWOUND = "branch-went-back"

BRANCHES_EVERY = 300.0  # seconds between two looks at all clones; one that was changed is looked at at once

SEARCHED = 20  # newest commits in which a node's branch shows that it is one


class RewoundBranches:
    """Keeps the condition `branch-went-back` in step; subject: dataset/branch."""

    def __init__(self, context: Context, works: GitExecutor, conditions: Conditions) -> None:
        self._context = context
        self._works = works
        self._conditions = conditions
        self._guard = Guard("branches", conditions)
        self._queue = WorkQueue()
        self._told: dict[str, set[str]] = {}  # dataset → subjects that are reported
        works.changed.append(self._changed)

    async def _changed(self, datasets: list[str]) -> None:
        for dataset in datasets:
            self._queue.add(dataset)

    async def run(self) -> None:
        """Looks until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    every(BRANCHES_EVERY, self._look_at_all, name="branches", conditions=self._conditions)
                )
                group.create_task(self._work())
        finally:
            self._queue.close()

    async def _look_at_all(self) -> None:
        datasets = set(await self._works.read(dataset_names, self._context.data))
        for dataset in datasets | self._told.keys():
            self._queue.add(dataset)

    async def _work(self) -> None:
        while True:
            dataset = await self._queue.take()
            try:
                with self._guard.item(dataset):
                    await self.look(dataset)
            except Unavailable as error:  # a broken clone is told as such
                log.warning("branches.not_looked_at", dataset=dataset, code=error.code)
            finally:
                self._queue.done(dataset)

    async def look(self, dataset: str) -> None:
        """Reports what went back of a dataset, and clears what is there again."""
        found = await self._works.read(rewound_branches, self._context, dataset)
        subjects = {f"{dataset}/{back.branch}": (back, words) for back, words in found}
        for subject, (back, words) in subjects.items():
            self._conditions.report(REWOUND, subject, detail=words, next_step=_what_to_do(dataset, back))
        for subject in self._told.get(dataset, set()) - subjects.keys():
            self._conditions.clear(REWOUND, subject)
        if subjects:
            self._told[dataset] = set(subjects)
        else:
            self._told.pop(dataset, None)

    async def acknowledge(self, dataset: str, broken_clone: Callable[[str], Awaitable[None]]) -> None:
        """Takes what went back as it is, and says so of a broken clone as well.

        Raises what `broken_clone` raises, NotFound only when there was nothing of either.
        """
        kept = []
        if dataset in self._told:
            kept = await self._works.change([dataset], _accept, self._context, dataset)
            log.info("branches.acknowledged", dataset=dataset, kept=kept)
            await self.look(dataset)
        try:
            await broken_clone(dataset)
        except NotFound:
            if not kept:
                raise


def rewound_branches(context: Context, dataset: str) -> list[tuple[RewoundBranch, str]]:
    """Branches of other nodes and ground truth that lack what they had, and that in words. Blocking."""
    try:
        clone = Clone.open(context.data.clone(dataset))
    except NotFound:  # it was set aside meanwhile
        return []
    return [
        (back, _in_words(clone, dataset, back))
        for back in clone.rewound_branches()
        if back.branch == GROUND_TRUTH or (back.branch != context.node and _is_a_nodes(clone, back))
    ]


def _is_a_nodes(clone: Clone, back: RewoundBranch) -> bool:
    """Whether runs have committed to it: of other branches people may do what they like."""
    entries, _ = clone.log(back.seen, SEARCHED)
    return any(provenance.trailers(entry.message) for entry in entries)


def _in_words(clone: Clone, dataset: str, back: RewoundBranch) -> str:
    now = "is gone" if back.tip is None else f"is at {back.tip[:10]}"
    how = "went back to an earlier state" if back.is_earlier and back.tip else "was rewritten"
    if back.tip is None:
        how = "was removed"
    return (
        f"The branch {back.branch} of dataset {dataset} {how} at {clone.url}: it {now}, without {back.lost} "
        f"commits up to {back.seen[:10]} that it had. They are kept on this node as {back.kept_as}."
    )


def _what_to_do(dataset: str, back: RewoundBranch) -> str:
    replay = f"maoctl dataset resolve {dataset} --replay"
    where = replay if back.branch == GROUND_TRUTH else f"on {back.branch}: {replay}"
    return (
        f"If the git server was set back, say to a backup, bring them there again as they were; {where} . "
        f"If it was meant: maoctl dataset acknowledge {dataset} ."
    )


def _accept(context: Context, dataset: str) -> list[str]:
    clone = Clone.open(context.data.clone(dataset))
    return [
        clone.accept_rewound(back, context.clock.now())
        for back in clone.rewound_branches()
        if back.branch != context.node
    ]
