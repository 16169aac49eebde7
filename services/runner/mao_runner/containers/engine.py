"""What the engine reports: a mirror of our containers, and the condition `engine`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace

from mao_runner.drivers.protocol import (
    Connected,
    Container,
    Disconnected,
    Driver,
    EngineRefused,
    Happened,
    fault_of_refusal,
)
from mao_runner.labels import StepAttempt, attempt_of
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.reconcile import Guard, every

log = get_logger(__name__)

LIST_RETRY = 1.0  # seconds between attempts to list
RESYNC_PERIOD = 60.0  # seconds after which the engine is asked about containers that seem to go on


class ContainerMirror:
    """What the engine last told of every container with `labels`, by name.

    `synced` is set while events flow and the list has been read since they do. Subscribers are called
    with each container that changed or went; and with None when everything was listed anew.
    """

    def __init__(
        self, driver: Driver, labels: Mapping[str, str], conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self._guard = Guard("containers", conditions)
        self._news = Guard("container-news", conditions)
        self.driver = driver
        self.labels = dict(labels)
        self.synced = asyncio.Event()
        self.engine: str | None = None  # name and version of the engine, as of the last list
        self._known: dict[str, Container] = {}
        self._subscribers: list[Callable[[Container | None], None]] = []

    def subscribe(self, callback: Callable[[Container | None], None]) -> None:
        self._subscribers.append(callback)

    def get(self, name: str) -> Container | None:
        return self._known.get(name)

    def all(self) -> list[Container]:
        return list(self._known.values())

    def of_steps(self) -> Iterable[tuple[StepAttempt, Container]]:
        """Those that run steps, with what they run."""
        for container in self.all():
            if (key := attempt_of(container.labels)) is not None:
                yield key, container

    def note(self, container: Container) -> None:
        """Takes over what an own call to the engine has answered, unless events were faster."""
        known = self._known.get(container.name)
        if known is None or known.state != "exited":
            self._known[container.name] = container

    async def ended(self, container: Container) -> Container:
        """Waits until the container has ended; for ever when it vanishes."""
        changed = asyncio.Event()

        def look(other: Container | None) -> None:
            if other is None or other.name == container.name:
                changed.set()

        self._subscribers.append(look)
        try:
            while True:
                changed.clear()
                now = self._known.get(container.name)
                if now is not None and now.state == "exited":
                    return now
                await changed.wait()
        finally:
            self._subscribers.remove(look)

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    async def run(self) -> None:
        """Keeps the picture in step for ever; what one event or container does keeps no other from it."""
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
                    case Happened():
                        with self._guard.item(event.name):
                            self._take(event)

    async def ask_for_ever(self) -> None:
        """Against lost events: an engine drops them for a reader that is slow."""
        await asyncio.sleep(RESYNC_PERIOD)
        await every(RESYNC_PERIOD, self.ask, name="engine-asks", conditions=self._conditions)

    async def ask(self) -> None:
        """Asks the engine about every container that was not seen to end."""
        for seen in self.all():
            if seen.state == "exited":
                continue
            try:
                with self._guard.item(seen.name):
                    self._answered(seen, await self.driver.inspect(seen.id))
            except Unavailable:
                return  # its events will tell when it is back

    def _answered(self, seen: Container, there: Container | None) -> None:
        if self._known.get(seen.name) != seen or (there is not None and there.state == seen.state):
            return
        log.warning("engine.event_lost", container=seen.name, state=there.state if there else "gone")
        if there is None:
            self.forget(seen.name)
        else:
            self._known[seen.name] = there
        self._tell(there or seen)

    async def _list(self) -> None:
        while True:
            try:
                found = await self.driver.recover(self.labels)
                self.engine = await self.driver.version()
                break
            except Unavailable as error:
                log.warning("engine.list_failed", error=error.detail)
                await asyncio.sleep(LIST_RETRY)
            except Exception as error:  # noqa: BLE001 (whatever it says of one container)
                await asyncio.sleep(self._guard.failed("list", error))
        there = {each.name for each in found}
        self._guard.keep(there)
        self._news.keep(there | {"all"})
        before = self._known
        self._known = {each.name: merge_listed(each, before.get(each.name)) for each in found}
        self.synced.set()
        log.info("engine.listed", containers=len(found))
        self._tell(None)

    def _take(self, event: Happened) -> None:
        known = self._known.get(event.name)
        if event.what == "destroy":
            gone = self._known.pop(event.name, None)
            if gone is not None:
                self._tell(gone)
            return
        container = known or Container(event.id, event.name, event.labels, "created", killed=None)
        changed = apply_event(container, event)
        if changed != known:
            self._known[event.name] = changed
            if changed.state != container.state:
                self._tell(changed)

    def _tell(self, container: Container | None) -> None:
        name, all_told = container.name if container else "all", True
        for callback in list(self._subscribers):
            try:
                callback(container)
            except Exception as error:  # noqa: BLE001 (of one container; the others have to be told)
                self._news.failed(name, error)
                all_told = False
        if all_told:
            self._news.worked(name)


def apply_event(container: Container, event: Happened) -> Container:
    """The container after an event: pure. One that has exited never runs again, whatever is repeated."""
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
    """A container as a list tells of it, with what was known before: pure.

    One that runs is watched from now on; whether one that ended meanwhile was killed is not known.
    """
    if found.state != "exited":
        return replace(found, killed=False)
    return before if before is not None and before.state == "exited" else found


CHECK_PERIOD = 30.0  # seconds between two looks
FAILED_CHECK_PERIOD = 2.0  # while something is wrong
MAX_REFUSALS = 3  # containers in a row that it refused: then it is not one image or command
START_SUBJECT, DATA_SUBJECT = "start", "data directory"  # subjects, beside the engine itself


class EngineMonitor:
    """`run` has to run beside the runner; the step controller tells what became of each start."""

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
        """For ever."""
        await every(0.0, self._look_and_pause, name="engine-watch", conditions=self._conditions)

    async def _look_and_pause(self) -> float:
        return CHECK_PERIOD if await self.look() else FAILED_CHECK_PERIOD

    async def look(self) -> bool:
        """One look; whether the engine answers and sees the data directory."""
        if not await self._holds(
            "", self._ping, "'docker info' shows why; start Docker or correct its socket."
        ):
            self._conditions.clear("engine", DATA_SUBJECT)  # which cannot be told now
            return False
        return await self._holds(DATA_SUBJECT, self._check_data, "See MAO_DATA_DIR and MAO_HOSTDIR.")

    async def _holds(self, subject: str, ask: Callable[[], Awaitable[None]], advice: str) -> bool:
        try:
            await ask()
        except MaoError as error:
            self._conditions.report(
                "engine", subject, detail=error.detail, next_step=error.next or advice, state="failed"
            )
            return False
        self._conditions.clear("engine", subject)
        return True

    def started(self) -> None:
        """A container was started: what was refused before is no fault of the engine's any more."""
        self._refusals = 0
        self._conditions.clear("engine", START_SUBJECT)

    def refused(self, error: EngineRefused) -> None:
        """A container was not started; what is the tool's or the image's fault is not counted."""
        if fault_of_refusal(error) != "engine":
            return
        self._refusals += 1
        failed = self._refusals >= MAX_REFUSALS
        times = f" ({self._refusals} containers in a row)" if self._refusals > 1 else ""
        self._conditions.report(
            "engine",
            START_SUBJECT,
            detail=f"The engine answers, but started no container: {error.detail.rstrip('.')}{times}.",
            next_step=error.next or "'docker run' of the same image shows why; look at Docker's log.",
            state="failed" if failed else "degraded",
        )
