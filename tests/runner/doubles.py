"""Engines and stores, named after their behaviour."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mao_runner.drivers.fake import FakeDriver, FakeLogStream
from mao_runner.drivers.protocol import Capacity, Container, ContainerSpec, EngineRefused, HostCommand
from mao_shared.errors import EngineUnavailable
from mao_shared.store.memory import MemoryStore


class PromptDriver(FakeDriver):
    """An engine whose tools print a line and end at once; `runs` counts how often each ran."""

    def __init__(self, code: int = 0, *, oom: bool = False) -> None:
        super().__init__()
        self.code, self.oom, self.runs = code, oom, 0

    async def start(self, container_id: str) -> None:
        await super().start(container_id)
        self.runs += 1
        self.output[container_id].write(b"said\n")
        self.exit(container_id, self.code, oom=self.oom)


class BrokenStream(FakeLogStream):
    """A log stream that breaks after a number of pieces."""

    def __init__(self, stream: FakeLogStream, pieces: int) -> None:
        self._stream, self._pieces = stream, pieces

    def __iter__(self) -> Iterator[bytes]:
        for number, piece in enumerate(self._stream):
            if number == self._pieces:
                raise EngineUnavailable("The engine closed the output stream early: connection reset")
            yield piece
        raise EngineUnavailable("The engine closed the output stream early: connection reset")

    def close(self) -> None:
        self._stream.close()


class SilentStream(FakeLogStream):
    """A log stream without output that ends only when it is closed."""

    def __init__(self) -> None:
        super().__init__(queue.SimpleQueue())


class BadLogDriver(PromptDriver):
    """An engine whose tools end at once; their output, `LINES`, cannot be read while `bad` is set."""

    LINES = (b"one\n", b"two\n", b"three\n")

    def __init__(self, bad: Literal["broken", "refused", "silent", ""]) -> None:
        super().__init__()
        self.bad = bad

    async def start(self, container_id: str) -> None:
        for line in self.LINES:
            self.output[container_id].write(line)
        await FakeDriver.start(self, container_id)
        self.exit(container_id, 0)

    def logs(self, container_id: str) -> FakeLogStream:
        match self.bad:
            case "broken":
                return BrokenStream(super().logs(container_id), 1)
            case "refused":
                raise EngineUnavailable("configured logging driver does not support reading")
            case "silent":
                return SilentStream()
            case _:
                return super().logs(container_id)


class OpenHostDriver(PromptDriver):
    """An engine on whose host the firewall cannot be set while `refusal` is set."""

    def __init__(self, refusal: str = "no iptables works on this host") -> None:
        super().__init__()
        self.refusal = refusal

    async def run_on_host(self, command: HostCommand) -> tuple[int, str]:
        await super().run_on_host(command)
        return (1, self.refusal) if self.refusal else (0, "iptables")


class StubbornDriver(FakeDriver):
    """An engine whose tools ignore SIGTERM."""

    async def signal(self, container_id: str, signal: Literal["TERM", "KILL"]) -> None:
        if signal == "TERM":
            self.calls.append(f"TERM {container_id.removeprefix('id-')}")
            return
        await super().signal(container_id, signal)


class RefusingDriver(FakeDriver):
    """An engine that refuses to start the containers it has created."""

    async def start(self, container_id: str) -> None:
        raise EngineRefused("exec format error", code="tool-cannot-start", next="rebuild it")


class LateDriver(FakeDriver):
    """An engine that is starting, and refuses the first calls."""

    refusals = 3

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise EngineRefused("layer store is not ready")
        return await super().sees(host_path, labels)


class SetClock:
    """The machine's clock, with an offset that the test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class AbsentDriver(FakeDriver):
    """An engine that does not answer until `back` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True

    def back(self) -> None:
        self.away = False
        self.break_events()

    async def ping(self) -> None:
        self._check()

    async def capacity(self) -> Capacity:
        self._check()
        return await super().capacity()

    async def create(self, spec: ContainerSpec) -> Container:
        self._check()
        return await super().create(spec)

    async def recover(self, labels: Mapping[str, str]) -> list[Container]:
        self._check()
        return await super().recover(labels)

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        self._check()
        return await super().sees(host_path, labels)

    def _check(self) -> None:
        if self.away:
            raise EngineUnavailable("the engine does not answer", next="wait")


class Death:
    """Stops a process at its nth action, before or after the action takes effect."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.happened = at, after, asyncio.Event()

    async def act(self, call: Any) -> Any:
        self.at -= 1
        if self.at != 0:
            return await call()
        if self.after:
            await call()
        self.happened.set()
        return await asyncio.Event().wait()  # for ever: whoever was killed does nothing more


class MortalStore:
    """A memory store whose client is killed at one of its writes."""

    def __init__(self, inner: MemoryStore, death: Death) -> None:
        self._inner = inner
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        revision_or_none = await self._death.act(lambda: self._inner.replace(key, value, revision))
        assert revision_or_none is None or isinstance(revision_or_none, int)
        return revision_or_none


class MortalDriver:
    """An engine whose client is killed at one of the calls that change something."""

    def __init__(self, inner: FakeDriver, death: Death) -> None:
        self._inner = inner
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create(self, spec: ContainerSpec) -> Any:
        return await self._death.act(lambda: self._inner.create(spec))

    async def start(self, container_id: str) -> Any:
        return await self._death.act(lambda: self._inner.start(container_id))

    async def remove(self, container_id: str) -> Any:
        return await self._death.act(lambda: self._inner.remove(container_id))
