"""A mirror of our containers as the engine reports them, and a monitor of the engine (condition `engine`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from mao_runner.drivers.protocol import (
    Connected,
    Container,
    ContainerEvent,
    Disconnected,
    Driver,
    EngineRefused,
    fault_of_refusal,
)
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.reconcile import Backoff, Guard, every, until_done

log = get_logger(__name__)

LIST_RETRY = 1.0  # seconds between attempts to list the containers
RESYNC_PERIOD = 60.0  # seconds between checks of containers that seem to be running


class ContainerMirror:
    """The containers with `labels` as the engine last reported them, by name.

    `synced` is set once the containers were listed, and cleared while events may be missed. Subscribers are
    called with each container that changed or was removed, and with None after each listing.
    """

    def __init__(
        self, driver: Driver, labels: Mapping[str, str], conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("containers", conditions)
        self._callbacks = Guard("container-news", conditions)
        self.driver = driver
        self.labels = dict(labels)
        self.synced = asyncio.Event()
        self.engine: str | None = None  # name and version of the engine when it was last listed
        self._known: dict[str, Container] = {}
        self._subscribers: list[Callable[[Container | None], None]] = []

    def subscribe(self, callback: Callable[[Container | None], None]) -> None:
        self._subscribers.append(callback)

    def get(self, name: str) -> Container | None:
        return self._known.get(name)

    def all(self) -> list[Container]:
        return list(self._known.values())

    def note(self, container: Container) -> None:
        """Record the result of one of our own calls, unless an event was faster."""
        known = self._known.get(container.name)
        if known is None or known.state != "exited":
            self._known[container.name] = container

    async def ended(self, container: Container) -> Container:
        """Wait until the container has ended, and return it; never returns if the container is removed."""
        changed = asyncio.Event()

        def look(other: Container | None) -> None:
            if other is None or other.name == container.name:
                changed.set()

        self._subscribers.append(look)
        try:
            while (now := self._known.get(container.name)) is None or now.state != "exited":
                await changed.wait()
                changed.clear()
            return now
        finally:
            self._subscribers.remove(look)

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    async def run(self) -> None:
        """Follow the engine until cancelled; one failing event or container does not affect the others."""
        await every(LIST_RETRY, self._follow, name="engine-events", conditions=self._conditions)

    async def _follow(self) -> None:
        async with aclosing(self.driver.events(self.labels)) as events:
            async for event in events:
                match event:
                    case Connected():
                        await self._list()
                    case Disconnected():
                        if self.synced.is_set():
                            log.warning("engine.away", reason=event.reason)
                        self.synced.clear()
                    case ContainerEvent():
                        with self._guard.item(event.name):
                            self._take(event)

    async def run_resync(self) -> None:
        """Resync until cancelled, since an engine drops events for a slow reader."""
        await every(
            RESYNC_PERIOD,
            self.resync,
            name="engine-asks",
            initial_delay=RESYNC_PERIOD,
            conditions=self._conditions,
        )

    async def resync(self) -> None:
        """Inspect every container that was not seen to end, and correct the mirror."""
        for seen in self.all():
            if seen.state == "exited":
                continue
            try:
                with self._guard.item(seen.name):
                    self._correct(seen, await self.driver.inspect(seen.id))
            except Unavailable:
                return  # containers are listed again when the events are back

    def _correct(self, seen: Container, found: Container | None) -> None:
        if self._known.get(seen.name) != seen or (found is not None and found.state == seen.state):
            return
        log.warning("engine.event_lost", container=seen.name, state=found.state if found else "gone")
        if found is None:
            self.forget(seen.name)
        else:
            self._known[seen.name] = found
        self._notify(found or seen)

    async def _list(self) -> None:
        found, self.engine = await until_done(
            self._read_list,
            name="engine-list",
            conditions=self._conditions,
            away=Backoff(LIST_RETRY, LIST_RETRY),
        )
        names = {container.name for container in found}
        self._guard.keep(names)
        self._callbacks.keep(names | {"all"})
        before = self._known
        self._known = {
            container.name: merge_listed(container, before.get(container.name)) for container in found
        }
        self.synced.set()
        log.info("engine.listed", containers=len(found))
        self._notify(None)

    async def _read_list(self) -> tuple[list[Container], str]:
        return await self.driver.recover(self.labels), await self.driver.version()

    def _take(self, event: ContainerEvent) -> None:
        known = self._known.get(event.name)
        if event.what == "destroy":
            gone = self._known.pop(event.name, None)
            if gone is not None:
                self._notify(gone)
            return
        container = known or Container(event.id, event.name, event.labels, "created", killed=None)
        changed = apply_event(container, event)
        if changed != known:
            self._known[event.name] = changed
            if changed.state != container.state:
                self._notify(changed)

    def _notify(self, container: Container | None) -> None:
        name, all_called = container.name if container else "all", True
        for callback in list(self._subscribers):
            try:
                callback(container)
            except Exception as error:  # noqa: BLE001 (of one container; the others are still notified)
                self._callbacks.failed(name, error)
                all_called = False
        if all_called:
            self._callbacks.succeeded(name)


def apply_event(container: Container, event: ContainerEvent) -> Container:
    """Return the container after an event (pure). Once exited it never runs again, even if events repeat."""
    if container.state == "exited":
        return replace(container, oom=True) if event.what == "oom" else container
    match event.what:
        case "start":
            return replace(container, state="running")
        case "kill":
            return replace(container, killed=True)
        case "oom":
            return replace(container, oom=True)
        case "die":
            return replace(container, state="exited", exit_code=event.exit_code, finished_at=event.at)
        case _:
            return container


def merge_listed(found: Container, before: Container | None) -> Container:
    """Complete a listed container by what was known of it before (pure).

    A running one is watched from now on. For one that ended unobserved, it is unknown whether it was killed.
    """
    if found.state != "exited":
        return replace(found, killed=False)
    return before if before is not None and before.state == "exited" else found


CHECK_PERIOD = 30.0  # seconds between checks
FAILED_CHECK_PERIOD = 2.0  # seconds, while something is wrong
MAX_REFUSALS = 3  # containers refused in a row; with more, no single image or command is to blame
START_SUBJECT, DATA_SUBJECT = "start", "data directory"  # of the condition; the engine's own is empty


class EngineMonitor:
    """Monitors whether the engine answers, sees the data directory and starts containers."""

    def __init__(
        self,
        conditions: Conditions,
        ping: Callable[[], Awaitable[None]],
        check_data: Callable[[], Awaitable[None]],
    ) -> None:
        self._conditions = conditions
        self._ping = ping
        self._check_data = check_data
        self._refusals = 0

    async def run(self) -> None:
        """Check until cancelled."""
        await every(CHECK_PERIOD, self.check, name="engine-watch", conditions=self._conditions)

    async def check(self) -> float | None:
        """Check the engine and the data directory; return the seconds until the next check if one failed."""
        if not await self._passes(
            "", self._ping, "Check that the container engine is running and that the node's user may use it."
        ):
            self._conditions.clear("engine", DATA_SUBJECT)  # unknown now
            return FAILED_CHECK_PERIOD
        sees_data = await self._passes(DATA_SUBJECT, self._check_data, "See MAO_DATA_DIR and MAO_HOSTDIR.")
        return None if sees_data else FAILED_CHECK_PERIOD

    async def _passes(self, subject: str, check: Callable[[], Awaitable[None]], advice: str) -> bool:
        try:
            await check()
        except MaoError as error:
            self._conditions.report(
                "engine", subject, detail=error.detail, next_step=error.next or advice, state="failed"
            )
            return False
        self._conditions.clear("engine", subject)
        return True

    def started(self) -> None:
        """Record that a container was started, so earlier refusals were not the engine's fault."""
        self._refusals = 0
        self._conditions.clear("engine", START_SUBJECT)

    def refused(self, error: EngineRefused) -> None:
        """Record that a container was not started; faults of the tool or the image do not count."""
        if fault_of_refusal(error) != "engine":
            return
        self._refusals += 1
        failed = self._refusals >= MAX_REFUSALS
        times = f" ({self._refusals} containers in a row)" if self._refusals > 1 else ""
        self._conditions.report(
            "engine",
            START_SUBJECT,
            detail=f"The engine answers, but started no container: {error.detail.rstrip('.')}{times}.",
            next_step=error.next or "Start a container of the same image without MAO to see why.",
            state="failed" if failed else "degraded",
        )
