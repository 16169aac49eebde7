"""What is wrong with the node's data for so long that a person should know: waiting commits, a full disk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import mao_git
from mao_datamgmt.context import Context
from mao_datamgmt.disk import rooms
from mao_datamgmt.executor import Works
from mao_git.errors import MIB, Room, nearly_short, shortage
from mao_git.remotes import access
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import format_time
from mao_shared.reconcile import every

from .backwards import Backwards
from .bare import dataset_names
from .push import Trouble

log = get_logger(__name__)

DISK_EVERY = 30.0  # seconds between two looks at the disk: some system calls
DISK_EVERY_BAD = (
    2.0  # while something waits for room: what waits goes on within seconds, and so says readiness
)
OUTBOX_EVERY = 300.0  # seconds between two looks at all outboxes; a push that gets through is told at once


class Watch:
    """Keeps the conditions `disk`, `unpushed` and `ssh-key` in step, and `branch-went-back` (`backwards`).

    `outbox_age`: how old a commit may get that its remote lacks; `troubles`: why pushes did not get through.
    """

    def __init__(
        self,
        context: Context,
        works: Works,
        conditions: Conditions,
        outbox_age: timedelta,
        troubles: Mapping[str, Trouble],
    ) -> None:
        self.backwards = Backwards(context, works, conditions)
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

    def _judge(self, folder: str, room: Room) -> bool:
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
        found = await self._works.read(access.faults, self._context.access.key_dir)
        for fault in found:
            self._conditions.report("ssh-key", fault.name, detail=f"{fault.words}.", next_step=fault.next)
        self._conditions.clear_all_but("ssh-key", [fault.name for fault in found])

    async def look_at_outboxes(self) -> None:
        """One look at what waits to be pushed."""
        now = self._context.clock.now()
        late = []
        for dataset, waiting, since in await self._works.read(waiting_since, self._context):
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


def waiting_since(context: Context) -> list[tuple[str, int, datetime]]:
    """Datasets with commits that their remotes lack: how many, and when the oldest was made. Blocking."""
    found = []
    for name in dataset_names(context.data):
        try:
            count, since = mao_git.waiting(mao_git.open_clone(context.data.clone(name)), context.node)
        except (MaoError, *mao_git.TROUBLE) as error:  # one broken clone must not hide the others
            log.warning("watch.clone_unusable", dataset=name, error=str(error))
            continue
        if since is not None:
            found.append((name, count, since))
    return found
