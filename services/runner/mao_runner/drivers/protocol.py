"""The protocol of a container engine's driver.

* Every call raises `EngineUnavailable` if the engine does not answer in time; the action may or may not have
  happened, and every call can be repeated.
* `EngineRefused` means that the engine answered and refused; its `code` says why.
* Containers are found again by their labels; nothing but the engine remembers them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, Protocol

from mao_shared.errors import InvalidInput, MaoError, Unavailable
from mao_shared.models import ResolvedImage
from mao_shared.models.pipeline import Fault, Pull

ContainerState = Literal["created", "running", "exited"]


class EngineRefused(MaoError):
    """The engine will not create or start a container, or not make a network.

    Codes: `image-not-found`, `tool-cannot-start`, `workspace-missing`, `container-name-taken`,
    `host-network-uid`, `tool-network-missing` and others that begin so, and `engine-refused` for all else.
    """

    status: ClassVar[int] = 422
    default_code: ClassVar[str] = "engine-refused"


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the host in the container; it has to be there."""

    source: str  # as the engine's host has it
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image declares. `words`: its entry point and command."""

    workdir: str = "/"
    volumes: Sequence[str] = ()
    words: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything about a container. `memory` in bytes, `cpu` in cores, `log_max` in bytes.

    `scratch`: folders in memory that anybody can write to, and that go with it.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    command: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[Bind] = ()
    scratch: Sequence[str] = ()
    user: str = "65534:65534"
    memory: int | None = None
    cpu: float | None = None
    pids: int | None = None
    network: str = "none"  # none, host, bridge (the engine's default one), or a network's name
    capabilities: Sequence[str] = ()  # kept of all that are dropped
    new_privileges: bool = False
    groups: Sequence[int] = ()  # further groups of its user
    log_max: int = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class HostCommand:
    """A shell script for the engine's host, and the name and labels of the container that runs it."""

    name: str
    script: str
    arguments: Sequence[str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine last told of it.

    `killed`: whether somebody told the engine to kill it; None when nobody watched all the time.
    """

    id: str
    name: str
    labels: Mapping[str, str]
    state: ContainerState
    exit_code: int | None = None
    oom: bool = False
    killed: bool | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """Events flow from now on: whoever keeps a picture of the containers lists them now."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Events may be missed until the next `Connected`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Something happened to one container."""

    what: Literal["start", "kill", "oom", "die", "destroy"]
    id: str
    name: str
    labels: Mapping[str, str]
    at: datetime
    exit_code: int | None = None  # with `die`


EngineEvent = Connected | Disconnected | Happened


@dataclass(frozen=True, slots=True)
class Capacity:
    """The engine and its machine. `memory` in bytes."""

    version: str
    cpus: int
    memory: int


class LogStream(Protocol):
    """What a container wrote from its beginning on, in pieces, until it ends. For a thread of its own.

    The iteration ends only where the output does (or by `close`), and raises EngineUnavailable where the
    engine breaks it off or cannot read on.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Ends the iteration, from any thread."""
        ...


class Driver(Protocol):
    """See the module's docstring for what every call raises."""

    @property
    def address(self) -> str:
        """The URL by which this process reaches the engine, as `unix:///var/run/docker.sock`."""
        ...

    async def ping(self) -> None: ...

    async def capacity(self) -> Capacity: ...

    async def version(self) -> str:
        """The engine's name and version, as `docker 20.10.24`."""
        ...

    async def resolve(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        """The image pinned by content, pulled as the policy says.

        Raises InvalidInput (`image-not-found`, `image-pull-denied`, `image-invalid`) and
        RegistryUnavailable (`image-registry-unreachable`).
        """
        ...

    async def image_config(self, image: str) -> ImageConfig:
        """Of an image that is here; raises InvalidInput (`image-not-found`)."""
        ...

    async def create(self, spec: ContainerSpec) -> Container:
        """Makes the container, or adopts the one with the same name and labels as it is now."""
        ...

    async def start(self, container_id: str) -> None: ...

    async def inspect(self, container_id: str) -> Container | None:
        """None when there is no such container."""
        ...

    async def recover(self, labels: Mapping[str, str]) -> list[Container]:
        """All containers with these labels, whatever their state."""
        ...

    async def mounts(self, container_id: str) -> dict[str, str] | None:
        """Target → the host's path of a container's mounts; None when there is no such container."""
        ...

    async def signal(self, container_id: str, signal: Literal["TERM", "KILL"]) -> None:
        """Does nothing when the container does not run or is gone."""
        ...

    async def remove(self, container_id: str) -> None:
        """Kills it first if it runs; does nothing when it is gone."""
        ...

    async def changed_paths(self, container_id: str) -> list[str]:
        """Paths in the container's own file system that differ from its image."""
        ...

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        """Whether the engine's host has this path, as a mount would find it; leaves nothing behind."""
        ...

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[EngineEvent, None]:
        """Events of the containers with these labels, for ever, across the engine's restarts."""
        ...

    def logs(self, container_id: str) -> LogStream: ...

    async def ensure_network(self, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
        """The IPv4 subnets of the bridge network `name`, on which containers do not see each other; made if
        it is not there. `bridge`: its interface on the host.

        Raises EngineRefused (`tool-network-differs`) where there is another one of this name.
        """
        ...

    async def remove_network(self, name: str) -> None:
        """Does nothing when it is gone; EngineRefused (`tool-network-in-use`) while containers are on it."""
        ...

    async def run_on_host(self, command: HostCommand) -> tuple[int, str]:
        """Exit code and output of a script run by the host's own programs, as root of the host's network."""
        ...

    async def close(self) -> None: ...


_FAULT_OF_REFUSAL: dict[str, Fault] = {
    "tool-cannot-start": "tool",
    "host-network-uid": "tool",
    "image-not-found": "infrastructure",
    "workspace-missing": "infrastructure",
    "not-agreed": "infrastructure",
}


def fault_of_refusal(error: EngineRefused) -> Fault:
    """Whose fault it is that a container was not started."""
    return _FAULT_OF_REFUSAL.get(error.code, "engine")


class RegistryUnavailable(Unavailable):
    """An image's registry does not answer."""

    default_code = "image-registry-unreachable"


def image_not_found(image: str, words: str) -> InvalidInput:
    return InvalidInput(
        f"There is no image {image}: {words}.",
        code="image-not-found",
        next=f"Check name and tag (and 'docker login' if it is private); bring it here: docker pull {image}.",
    )
