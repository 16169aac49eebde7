"""Reports conditions of the node's data: full disks, old outboxes, unusable SSH keys, rewound branches.

A branch that lost commits at its remote, for instance because the git server was restored from a backup, is
found for ground truth and other nodes' branches, as the clone keeps their last state. This node's own branch
is checked at a push.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta

from mao_datamgmt import provenance
from mao_datamgmt.context import Context
from mao_datamgmt.disk import MIB, DiskSpace, disk_spaces, find_low_space, find_shortage
from mao_datamgmt.git_executor import GitExecutor
from mao_git import Clone, RepositoryError, RewoundBranch
from mao_git.remotes import access
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import GROUND_TRUTH, format_time
from mao_shared.reconcile import Controller, every

from .clones import dataset_names
from .push import PushFailure

log = get_logger(__name__)

DISK_CHECK_SECONDS = 30.0
FULL_DISK_CHECK_SECONDS = (
    2.0  # seconds: what waits for room continues within seconds, and readiness reports it
)
OUTBOX_CHECK_SECONDS = 300.0  # a push that succeeds ends the condition at once
BRANCH_CHECK_SECONDS = 300.0  # a clone that was changed is checked at once
REWOUND = "branch-went-back"
MAX_SEARCHED_COMMITS = 20  # newest commits that are searched for one made by a run


class HealthChecks:
    """Reports the conditions `disk`, `unpushed` and `ssh-key`; `rewound` reports those of branches.

    `outbox_age` is the age from which an unpushed commit is reported; `failures` are the last failed pushes.
    """

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        conditions: Conditions,
        outbox_age: timedelta,
        failures: Mapping[str, PushFailure],
    ) -> None:
        self.rewound = RewoundBranches(context, executor, conditions)
        self._conditions = conditions
        self._context = context
        self._executor = executor
        self._outbox_age = outbox_age
        self._push_failures = failures

    async def run(self) -> None:
        """Run all checks periodically until cancelled."""
        await asyncio.gather(
            every(0.0, self.check_disk, name="disk", conditions=self._conditions),
            every(OUTBOX_CHECK_SECONDS, self.check_outboxes, name="outboxes", conditions=self._conditions),
            every(DISK_CHECK_SECONDS, self.check_ssh_keys, name="ssh-keys", conditions=self._conditions),
            self.rewound.run(),
        )

    async def check_disk(self) -> float:
        """Check every file system that the node writes to; return the seconds until the next check."""
        found = await self._executor.read(disk_spaces, self._context.data.root)
        is_short = [self._report_disk(folder, space) for folder, space in found.items()]
        self._conditions.clear_all_but("disk", found)
        return FULL_DISK_CHECK_SECONDS if any(is_short) else DISK_CHECK_SECONDS

    def _report_disk(self, folder: str, space: DiskSpace) -> bool:
        """Report the state of a file system; return True if writes wait for space there."""
        where = f"the folder {folder} of the data directory" if folder else "the data directory"
        free = f"{space.free / MIB:.0f} MiB free"
        if (cause := find_shortage(space, self._context.min_free)) is not None:
            next_step = (
                "Free space (or inodes) there, or lower MAO_MIN_FREE; what waits continues automatically."
                if space.writable
                else "Make sure that it is mounted for writing and belongs to the node's user (MAO_DATA_DIR)."
            )
            effect = "What is written there waits" if folder else "No run starts and nothing is published"
            detail = f"{effect}: on the disk of {where} {cause}."
            self._conditions.report("disk", folder, detail=detail, next_step=next_step, state="failed")
            return True
        if (warning := find_low_space(space, self._context.min_free)) is not None:
            next_step = "Free space (or inodes) before runs have to wait for it."
            self._conditions.report(
                "disk", folder, detail=f"On the disk of {where} {warning} ({free}).", next_step=next_step
            )
        else:
            self._conditions.clear("disk", folder)
        return False

    async def check_ssh_keys(self) -> None:
        """Check the files in the key directory."""
        found = await self._executor.read(access.key_faults, self._context.access.key_dir)
        for fault in found:
            self._conditions.report("ssh-key", fault.name, detail=f"{fault.text}.", next_step=fault.next)
        self._conditions.clear_all_but("ssh-key", [fault.name for fault in found])

    async def check_outboxes(self) -> None:
        """Check the age of the oldest unpushed commit of each dataset."""
        state = self._context.clock.now()
        late = []
        for dataset, waiting, since in await self._executor.read(unpushed_since, self._context):
            if state - since > self._outbox_age:
                late.append(dataset)
                last_failure = ""
                if (failed := self._push_failures.get(dataset)) is not None:
                    at = format_time(failed.next_try_at.replace(microsecond=0))
                    last_failure = (
                        f"; the last of {failed.tries} tries failed ({failed.failure.code}), "
                        f"the next is at {at}"
                    )
                self._conditions.report(
                    "unpushed",
                    dataset,
                    detail=f"{waiting} commits of dataset {dataset} wait to be pushed, the oldest since "
                    f"{format_time(since)}{last_failure}.",
                    next_step=f"Why: maoctl dataset get {dataset}; try now: maoctl dataset push {dataset}.",
                )
        self._conditions.clear_all_but("unpushed", late)


def unpushed_since(context: Context) -> list[tuple[str, int, datetime]]:
    """Return (dataset, unpushed commits, time of the oldest) for datasets with unpushed commits. Blocking."""
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


class RewoundBranches:
    """Reports the condition `branch-went-back`; its subject is dataset/branch."""

    def __init__(self, context: Context, executor: GitExecutor, conditions: Conditions) -> None:
        self._context, self._executor, self._conditions = context, executor, conditions
        self._reported: dict[str, set[str]] = {}  # dataset → subjects
        self._controller = Controller(
            "branches",
            self.check,
            workers=1,
            list_keys=self._datasets,
            resync=BRANCH_CHECK_SECONDS,
            conditions=conditions,
        )
        executor.on_change.append(self._changed)

    async def run(self) -> None:
        """Check changed datasets, and all periodically, until cancelled."""
        await self._controller.run()

    async def _changed(self, datasets: list[str]) -> None:
        for dataset in datasets:
            self._controller.add(dataset)

    async def _datasets(self) -> Iterable[str]:
        return {*await self._executor.read(dataset_names, self._context.data), *self._reported}

    async def check(self, dataset: str) -> None:
        """Report the rewound branches of a dataset, and clear the conditions of restored ones."""
        found = await self._executor.read(rewound_branches, self._context, dataset)
        subjects = {f"{dataset}/{branch.branch}": branch for branch, _ in found}
        for (subject, branch), (_, detail) in zip(subjects.items(), found, strict=True):
            replay = f"maoctl dataset resolve {dataset} --replay"
            where = replay if branch.branch == GROUND_TRUTH else f"on {branch.branch}: {replay}"
            next_step = (
                f"If the git server was restored from a backup, push them again; "
                f"{where} . If that was intended: maoctl dataset acknowledge {dataset} ."
            )
            self._conditions.report(REWOUND, subject, detail=detail, next_step=next_step)
        for subject in self._reported.pop(dataset, set()) - subjects.keys():
            self._conditions.clear(REWOUND, subject)
        if subjects:
            self._reported[dataset] = set(subjects)

    async def acknowledge(self, dataset: str, broken_clone: Callable[[str], Awaitable[None]]) -> None:
        """Accept the rewound branches as they are, and acknowledge a broken clone as well.

        Raises the errors of `broken_clone`, but NotFound only if no branch was accepted either.
        """
        accepted = []
        if dataset in self._reported:
            accepted = await self._executor.write([dataset], _accept, self._context, dataset)
            log.info("branches.acknowledged", dataset=dataset, kept=accepted)
            await self.check(dataset)
        try:
            await broken_clone(dataset)
        except NotFound:
            if not accepted:
                raise


def rewound_branches(context: Context, dataset: str) -> list[tuple[RewoundBranch, str]]:
    """Return the rewound branches of ground truth and other nodes, with a description each. Blocking."""
    try:
        clone = Clone.open(context.data.clone(dataset))
    except NotFound:  # it was set aside meanwhile
        return []
    found = []
    for rewound in clone.rewound_branches():
        if rewound.branch == context.node:
            continue
        if rewound.branch != GROUND_TRUTH:  # people may rewrite a branch without commits of runs
            entries, _ = clone.log(rewound.seen, MAX_SEARCHED_COMMITS)
            if not any(provenance.trailers(entry.message) for entry in entries):
                continue
        state = "is gone" if rewound.tip is None else f"is at {rewound.tip[:10]}"
        if rewound.tip is None:
            change = "was removed"
        else:
            change = "went back to an earlier state" if rewound.is_earlier else "was rewritten"
        description = (
            f"The branch {rewound.branch} of dataset {dataset} {change} at {clone.url}: it {state}, without "
            f"{rewound.lost} commits up to {rewound.seen[:10]} that it had. They are kept on this node as "
            f"{rewound.kept_as}."
        )
        found.append((rewound, description))
    return found


def _accept(context: Context, dataset: str) -> list[str]:
    clone = Clone.open(context.data.clone(dataset))
    return [
        clone.accept_rewound(rewound, context.clock.now())
        for rewound in clone.rewound_branches()
        if rewound.branch != context.node
    ]
