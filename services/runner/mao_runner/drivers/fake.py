"""An in-memory engine for tests, with the same protocol; the test controls what containers do."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from mao_shared.models import ResolvedImage
from mao_shared.models.tool import Pull

from .protocol import (
    Capacity,
    Connected,
    Container,
    ContainerEvent,
    ContainerSpec,
    Disconnected,
    EngineEvent,
    HostCommand,
    ImageConfig,
    image_not_found,
)

What = Literal["start", "kill", "oom", "die", "destroy"]


class FakeLogs:
    """A container's output so far, and more until the container ends."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._readers: list[queue.SimpleQueue[bytes | None]] = []
        self._ended = False

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        for reader in self._readers:
            reader.put(data)

    def end(self) -> None:
        self._ended = True
        for reader in self._readers:
            reader.put(None)

    def open(self) -> FakeLogStream:
        reader: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for piece in self._pieces:
            reader.put(piece)
        if self._ended:
            reader.put(None)
        self._readers.append(reader)
        return FakeLogStream(reader)


class FakeLogStream:
    def __init__(self, reader: queue.SimpleQueue[bytes | None]) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._reader.get()) is not None:
            yield piece

    def close(self) -> None:
        self._reader.put(None)


class FakeDriver:
    """Containers run until `exit` or a signal ends them; subclasses change that.

    `calls` lists the calls about containers in order, such as `create mao-node-1-run-0-1`.
    """

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.specs: dict[str, ContainerSpec] = {}
        self.output: dict[str, FakeLogs] = {}
        self.calls: list[str] = []
        self.unseen: tuple[str, ...] = ()  # prefixes of host paths that do not exist
        self.changed: dict[str, list[str]] = {}
        self.own_mounts: dict[str, dict[str, str]] = {}
        self.networks: dict[str, dict[str, str]] = {}
        self.on_host: list[HostCommand] = []
        self.images: set[str] = {"busybox:1"}
        self.configs: dict[str, ImageConfig] = {}
        self.address = "unix:///var/run/docker.sock"
        self.program = "docker"
        self._listeners: list[asyncio.Queue[EngineEvent]] = []

    async def ping(self) -> None:
        return None

    async def capacity(self) -> Capacity:
        return Capacity("fake", 4, 8 * 1024**3)

    async def version(self) -> str:
        return "fake 1.0"

    async def resolve(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        if image not in self.images:
            raise image_not_found(image, f"pull policy {pull}")
        return ResolvedImage(name=image, pinned=f"{image}@sha256:{'0' * 64}", platform="linux/amd64")

    async def image_config(self, image: str) -> ImageConfig:
        return self.configs.get(image, ImageConfig())

    async def create(self, spec: ContainerSpec) -> Container:
        self.calls.append(f"create {spec.name}")
        for existing in self.containers.values():
            if existing.name == spec.name:
                return existing
        created = Container(f"id-{spec.name}", spec.name, dict(spec.labels), "created", killed=False)
        self.containers[created.id] = created
        self.specs[created.id] = spec
        self.output[created.id] = FakeLogs()
        return created

    async def start(self, container_id: str) -> None:
        container = self.containers[container_id]
        self.calls.append(f"start {container.name}")
        self.containers[container_id] = replace(container, state="running")
        self.tell("start", container_id)

    async def inspect(self, container_id: str) -> Container | None:
        return self.containers.get(container_id)

    async def recover(self, labels: Mapping[str, str]) -> list[Container]:
        return [
            container
            for container in self.containers.values()
            if labels.items() <= dict(container.labels).items()
        ]

    async def mounts(self, container_id: str) -> dict[str, str] | None:
        return self.own_mounts.get(container_id)

    async def signal(self, container_id: str, signal: Literal["TERM", "KILL"]) -> None:
        self.calls.append(f"{signal} {container_id.removeprefix('id-')}")
        if container_id in self.containers:
            self.tell("kill", container_id)
            self.exit(container_id, 143 if signal == "TERM" else 137)

    async def remove(self, container_id: str) -> None:
        if container_id in self.containers:
            self.calls.append(f"remove {self.containers[container_id].name}")
            self.vanish(container_id)

    async def changed_paths(self, container_id: str) -> list[str]:
        return self.changed.get(container_id, [])

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        self.calls.append(f"sees {sorted(labels)}")
        return not host_path.startswith(self.unseen)

    async def events(self, labels: Mapping[str, str]) -> AsyncGenerator[EngineEvent, None]:
        listener: asyncio.Queue[EngineEvent] = asyncio.Queue()
        listener.put_nowait(Connected())
        self._listeners.append(listener)
        try:
            while True:
                event = await listener.get()
                if not isinstance(event, ContainerEvent) or labels.items() <= dict(event.labels).items():
                    yield event
        finally:
            self._listeners.remove(listener)

    def logs(self, container_id: str) -> FakeLogStream:
        return self.output[container_id].open()

    async def ensure_network(self, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
        self.networks[name] = {**labels, "bridge": bridge}
        return ["10.0.0.0/24"]

    async def remove_network(self, name: str) -> None:
        self.networks.pop(name, None)

    async def run_on_host(self, command: HostCommand) -> tuple[int, str]:
        self.on_host.append(command)
        return 0, "iptables"

    async def close(self) -> None:
        return None

    # called by the test

    def exit(self, container_id: str, code: int, *, oom: bool = False, at: datetime | None = None) -> None:
        """End a running container."""
        container = self.containers[container_id]
        if container.state != "running":
            return
        at = at or datetime.now(UTC)
        self.containers[container_id] = replace(
            container, state="exited", exit_code=code, oom=oom, finished_at=at
        )
        self.output[container_id].end()
        if oom:
            self.tell("oom", container_id, at=at)
        self.tell("die", container_id, at=at, exit_code=code)

    def vanish(self, container_id: str) -> None:
        """Remove a container, as `docker rm -f` does."""
        self.tell("destroy", container_id)
        self.output[container_id].end()
        del self.containers[container_id]

    def break_events(self, *, reconnect: bool = True) -> None:
        """End the stream of events; with `reconnect` it continues at once."""
        for listener in self._listeners:
            listener.put_nowait(Disconnected("the test broke it"))
            if reconnect:
                listener.put_nowait(Connected())

    @contextmanager
    def dropping_events(self) -> Iterator[None]:
        """Drop the events of the block."""
        listeners, self._listeners = self._listeners, []
        try:
            yield
        finally:
            self._listeners = listeners

    def tell(
        self, what: What, container_id: str, *, at: datetime | None = None, exit_code: int | None = None
    ) -> None:
        """Send an event to all listeners."""
        container = self.containers[container_id]
        at = at or datetime.now(UTC)
        event = ContainerEvent(what, container.id, container.name, container.labels, at, exit_code)
        for listener in self._listeners:
            listener.put_nowait(event)
