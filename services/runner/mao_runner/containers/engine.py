"""A picture of this installation's containers, kept by one list and one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace

from mao_runner.drivers import Connected, Container, Disconnected, Driver, Happened
from mao_runner.labels import Attempt, attempt_of
from mao_shared.conditions import Conditions
from mao_shared.errors import Unavailable
from mao_shared.mao_shared_logs import get_logger
from mao_shared.reconcile import Guard, every

log = get_logger(__name__)
LIST_AGAIN = 1.0  # seconds between attempts to list
ASK_EVERY = 60.0  # seconds after which the engine is asked about containers that seem to go on


class Containers:
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

    def of_steps(self) -> Iterable[tuple[Attempt, Container]]:
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
        await every(LIST_AGAIN, self._follow, name="engine-events", conditions=self._conditions)

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
        await asyncio.sleep(ASK_EVERY)
        await every(ASK_EVERY, self.ask, name="engine-asks", conditions=self._conditions)

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
                await asyncio.sleep(LIST_AGAIN)
            except Exception as error:  # noqa: BLE001 (whatever it says of one container)
                await asyncio.sleep(self._guard.failed("list", error))
        there = {each.name for each in found}
        self._guard.keep(there)
        self._news.keep(there | {"all"})
        before = self._known
        self._known = {each.name: listed(each, before.get(each.name)) for each in found}
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
        changed = after(container, event)
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


def after(container: Container, event: Happened) -> Container:
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


def listed(found: Container, before: Container | None) -> Container:
    """A container as a list tells of it, with what was known before: pure.

    One that runs is watched from now on; whether one that ended meanwhile was killed is not known.
    """
    if found.state != "exited":
        return replace(found, killed=False)
    return before if before is not None and before.state == "exited" else found
