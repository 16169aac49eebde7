"""What is wrong with the node for so long that a person should know: waiting commits, a disk nearly full."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.loops import for_ever
from mao_shared.models import Alarm, format_time

from . import repository
from .bare import dataset_names
from .context import Context
from .storage import storage
from .works import Works

log = get_logger(__name__)

PERIOD = 300.0  # seconds between two looks


class Watch:
    """`outbox_age`: how old a commit may get that its remote lacks."""

    def __init__(
        self,
        context: Context,
        works: Works,
        raise_alarm: Callable[[Alarm], Awaitable[object]],
        outbox_age: timedelta,
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions
        self._context = context
        self._works = works
        self._raise_alarm = raise_alarm
        self._outbox_age = outbox_age

    async def run(self) -> None:
        """Looks now and then, for ever."""
        await for_ever("watch", self.look, period=PERIOD, conditions=self._conditions)

    async def look(self) -> None:
        """Raises what is to be raised, each thing once."""
        now = self._context.clock.now()
        waiting = await self._works.read(waiting_since, self._context)
        alarms = [self._late(name, since, now) for name, since in waiting if now - since > self._outbox_age]
        disk = (await self._works.read(storage, self._context)).disk
        if disk.free < self._context.min_free:
            alarms.append(self._full(disk.free, now))
        for alarm in alarms:
            await self._raise_alarm(alarm)

    def _late(self, dataset: str, since: datetime, now: datetime) -> Alarm:
        return Alarm(
            id=f"{since:%Y%m%dT%H%M%SZ}.outbox.{dataset}",
            kind="outbox",
            node=self._context.node,
            raised_at=now,
            dataset=dataset,
            detail=f"Commits of dataset {dataset} have waited since {format_time(since)} to be pushed; "
            f"why: maoctl dataset get {dataset}.",
        )

    def _full(self, free: int, now: datetime) -> Alarm:
        """One a day."""
        return Alarm(
            id=f"{now:%Y%m%d}T000000Z.disk",
            kind="disk",
            node=self._context.node,
            raised_at=now,
            value=float(free),
            expected=float(self._context.min_free),
            detail=f"The disk of the data directory has {free} bytes left, less than MAO_MIN_FREE: "
            "no run starts until there is room.",
        )


def waiting_since(context: Context) -> list[tuple[str, datetime]]:
    """Datasets with commits that their remotes lack, and when the oldest of each was made. Blocking."""
    found = []
    for name in dataset_names(context.data):
        try:
            _, since = repository.waiting(repository.open_clone(context.data.clone(name)), context.node)
        except (MaoError, *repository.TROUBLE) as error:  # one broken clone must not hide the others
            log.warning("watch.clone_unusable", dataset=name, error=str(error))
            continue
        if since is not None:
            found.append((name, since))
    return found
