"""The protocol of a container engine's driver.

* Every call raises `EngineUnavailable` if the engine does not answer in time. The action may or may not have
  been performed, and every call can be repeated.
* `EngineRefused` means that the engine answered and refused; its `code` says why.
* Containers are found again by their labels; only the engine keeps a list of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, Protocol

from mao_shared.errors import InvalidInput, MaoError, Unavailable
from mao_shared.models import Fault, ResolvedImage
from mao_shared.models.tool import Pull

ContainerState = Literal["created", "running", "exited"]


class EngineRefused(MaoError):
    """The engine refuses to create or start a container, or to create a network.

    Codes: `image-not-found`, `tool-cannot-start`, `workspace-missing`, `container-name-taken`,
    `host-network-uid`, `tool-network-missing` and other `tool-network-…`, else `engine-refused`.
    """

    status: ClassVar[int] = 422
    default_code: ClassVar[str] = "engine-refused"


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the host that is mounted into the container; it must exist."""

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
    """A container to be created. `memory` and `log_max` in bytes, `cpu` in cores.

    `scratch`: folders in memory (tmpfs) that everybody can write to.
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
    network: str = "none"  # none, host, bridge (the engine's default network), or the name of a network
    capabilities: Sequence[str] = ()  # all others are dropped
    new_privileges: bool = False
    groups: Sequence[int] = ()  # supplementary groups of its user
    log_max: int = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class HostCommand:
    """A shell script for the engine's host; name and labels of the container that runs it."""

    name: str
    script: str
    arguments: Sequence[str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine last reported it.

    `killed`: True if it was killed through the engine; None if it was not watched all the time.
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
    """Events are complete from now on; list the containers now."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Events may be missing until the next `Connected`."""

    reason: str


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """An event of one container."""

    what: Literal["start", "kill", "oom", "die", "destroy"]
    id: str
    name: str
    labels: Mapping[str, str]
    at: datetime
    exit_code: int | None = None  # with `die`


EngineEvent = Connected | Disconnected | ContainerEvent


@dataclass(frozen=True, slots=True)
class Capacity:
    """The engine and its machine. `memory` in bytes."""

    version: str
    cpus: int
    memory: int


class LogStream(Protocol):
    """A container's output from its beginning to its end, in chunks. Blocks: iterate in a thread.

    The iteration ends only at the end of the output (or by `close`), and raises EngineUnavailable if the
    engine breaks it off or cannot read on.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """End the iteration, from any thread."""
        ...


class Driver(Protocol):
    """A container engine. See the module's docstring for what every call raises."""

    @property
    def address(self) -> str:
        """The URL by which this process reaches the engine, such as `unix:///var/run/docker.sock`."""
        ...

    @property
    def program(self) -> str:
        """The engine's command line program, for advice such as `docker rm NAME`."""
        ...

    async def ping(self) -> None: ...

    async def capacity(self) -> Capacity: ...

    async def version(self) -> str:
        """Return the engine's name and version, such as `docker 20.10.24`."""
        ...

    async def resolve(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        """Pull the image according to the policy, and pin it by digest.

        Raises InvalidInput (`image-not-found`, `image-pull-denied`, `image-invalid`) and
        RegistryUnavailable (`image-registry-unreachable`).
        """
        ...

    async def image_config(self, image: str) -> ImageConfig:
        """Return what a local image declares. Raises InvalidInput (`image-not-found`)."""
        ...

    async def create(self, spec: ContainerSpec) -> Container:
        """Create the container, or adopt an existing one with the same name and labels."""
        ...

    async def start(self, container_id: str) -> None: ...

    async def inspect(self, container_id: str) -> Container | None:
        """Return the container, or None if there is none."""
        ...

    async def recover(self, labels: Mapping[str, str]) -> list[Container]:
        """List the containers with these labels, in any state."""
        ...

    async def mounts(self, container_id: str) -> dict[str, str] | None:
        """Return the mounts of a container, target → path on the host; None if there is no such container."""
        ...

    async def signal(self, container_id: str, signal: Literal["TERM", "KILL"]) -> None:
        """Send a signal; do nothing if the container is not running or gone."""
        ...

    async def remove(self, container_id: str) -> None:
        """Remove the container; kill it first if it is running. Do nothing if it is gone."""
        ...

    async def changed_paths(self, container_id: str) -> list[str]:
        """List the paths in the container's own file system that differ from its image."""
        ...

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        """Return True if this path exists on the engine's host, as a mount would find it."""
        ...

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[EngineEvent, None]:
        """Yield the events of the containers with these labels, endlessly, across restarts of the engine."""
        ...

    def logs(self, container_id: str) -> LogStream: ...

    async def ensure_network(self, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
        """Create the bridge network `name` if it is missing; containers on it do not reach each other.

        Returns its IPv4 subnets. `bridge`: its interface on the host. Raises EngineRefused
        (`tool-network-differs`) if there is another network of this name.
        """
        ...

    async def remove_network(self, name: str) -> None:
        """Remove the network if it exists. Raises EngineRefused (`tool-network-in-use`)."""
        ...

    async def run_on_host(self, command: HostCommand) -> tuple[int, str]:
        """Run a script with the host's own programs, as root in the host's network.

        Returns its exit code and output.
        """
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
    """Return whose fault it is that a container was not started."""
    return _FAULT_OF_REFUSAL.get(error.code, "engine")


class RegistryUnavailable(Unavailable):
    """An image's registry does not answer."""

    default_code = "image-registry-unreachable"


def image_not_found(image: str, words: str) -> InvalidInput:
    return InvalidInput(
        f"There is no image {image}: {words}.",
        code="image-not-found",
        next=f"Check name and tag (and 'docker login' if it is private); pull it: docker pull {image}",
    )
