"""The driver for Docker Engine.

The SDK blocks, so its calls run in a bounded pool of threads, each with a time limit. The stream of events
has a thread of its own that hands over to the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException
from docker.types import LogConfig, Mount
from docker.utils import kwargs_from_env, parse_repository_tag

from mao_shared.errors import EngineUnavailable
from mao_shared.logs import get_logger
from mao_shared.models import ResolvedImage
from mao_shared.models.tool import Pull
from mao_shared.progress import report_progress

from .docker_network import ensure_network, remove_network, run_on_host
from .docker_responses import (
    FOLLOWED_EVENTS,
    DockerLogStream,
    EventThread,
    has_labels,
    image_platform,
    launch_error,
    one_line,
    pinned_reference,
    pull_error,
    read_container,
    read_image_config,
)
from .protocol import (
    Capacity,
    Container,
    ContainerSpec,
    EngineEvent,
    EngineRefused,
    HostCommand,
    ImageConfig,
    LogStream,
    image_not_found,
)
from .pull_progress import PullProgress

log = get_logger(__name__)
T = TypeVar("T")
LOCAL_SOCKET = "/var/run/docker.sock"
CALL_THREADS = 16
CONNECTIONS = 64  # connections that are kept open; more are opened when needed
SMALLEST_ENGINE_LOG = 16 * 1024**2  # bytes
CPU_PERIOD = 100_000  # microseconds
_SEE_LOG = "See the engine's log: journalctl -u docker."
_CONNECTION_ERRORS = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class DockerDriver:
    """The driver for the engine at DOCKER_HOST, or at the local socket; see `Driver`.

    Args:
        timeout: seconds that one call may take (pulls excepted).
        observe: called with the name of the driver's method and the seconds of each call of the engine;
            pulls and inspections of images are `pull` and `inspect_image`.
    """

    def __init__(
        self, *, timeout: int = 60, observe: Callable[[str, float], None] = lambda _, __: None
    ) -> None:
        self._timeout = timeout
        self._observe = observe
        self._pool = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="engine")
        self._connecting = threading.Lock()
        self._client: APIClient | None = None

    @property
    def address(self) -> str:
        return os.environ.get("DOCKER_HOST") or f"unix://{LOCAL_SOCKET}"

    @property
    def program(self) -> str:
        return "docker"

    async def ping(self) -> None:
        await self._call("ping", lambda client: client.ping())

    async def capacity(self) -> Capacity:
        info = await self._call("capacity", lambda client: client.info())
        return Capacity(info["ServerVersion"], info["NCPU"], info["MemTotal"])

    async def version(self) -> str:
        answer = await self._call("version", lambda client: client.version())
        return f"docker {answer['Version']}"

    async def resolve(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        found = None if pull == "always" else await self._inspect_image(image)
        if found is None and pull == "never":
            raise image_not_found(image, "it is not on this node, and its pull policy is 'never'")
        if found is None:
            await self._call("pull", lambda client: _pull(client, image))
            found = await self._inspect_image(image)
        if found is None:
            raise image_not_found(image, "it was pulled, but has been removed since")
        return ResolvedImage(
            name=image, pinned=pinned_reference(image, found), platform=image_platform(found)
        )

    async def image_config(self, image: str) -> ImageConfig:
        found = await self._inspect_image(image)
        if found is None:
            raise image_not_found(image, "it has just been removed")
        return read_image_config(found)

    async def create(self, spec: ContainerSpec) -> Container:
        return await self._call("create", lambda client: _create(client, spec))

    async def start(self, container_id: str) -> None:
        def start(client: APIClient) -> None:
            try:
                client.start(container_id)
            except APIError as error:
                raise launch_error(container_id[:12], _status(error), _message(error)) from error

        await self._call("start", start)

    async def inspect(self, container_id: str) -> Container | None:
        return await self._call("inspect", lambda client: _inspect(client, container_id))

    async def recover(self, labels: Mapping[str, str]) -> list[Container]:
        def recover(client: APIClient) -> list[Container]:
            rows = client.containers(all=True, filters={"label": _label_filter(labels)})
            found = (_inspect(client, row["Id"]) for row in rows)
            return [container for container in found if container is not None]

        return await self._call("recover", recover)

    async def mounts(self, container_id: str) -> dict[str, str] | None:
        def mounts(client: APIClient) -> dict[str, str] | None:
            document = _unless_gone(lambda: client.inspect_container(container_id))
            if document is None:
                return None
            return {mount["Destination"]: mount["Source"] for mount in document.get("Mounts") or []}

        return await self._call("mounts", mounts)

    async def signal(self, container_id: str, signal: Literal["TERM", "KILL"]) -> None:
        await self._call(
            "signal",
            lambda client: _unless_gone(lambda: client.kill(container_id, f"SIG{signal}"), also=(409,)),
        )

    async def remove(self, container_id: str) -> None:
        # 409: it is being removed already.
        await self._call(
            "remove",
            lambda client: _unless_gone(
                lambda: client.remove_container(container_id, force=True, v=True), also=(409,)
            ),
        )

    async def changed_paths(self, container_id: str) -> list[str]:
        changes = await self._call("changed_paths", lambda client: client.diff(container_id))
        return [str(change["Path"]) for change in changes or []]

    async def sees(self, host_path: str, labels: Mapping[str, str]) -> bool:
        def sees(client: APIClient) -> bool:
            # Creating a container checks its mounts; if it is created, it is removed without being started.
            images = client.images(quiet=True)
            image = images[0] if images else "mao-no-such-image:none"
            mounts = [Mount("/mao-check", host_path, type="bind", read_only=True)]
            try:
                host_config = client.create_host_config(mounts=mounts)
                probe = client.create_container(image, ["true"], labels=dict(labels), host_config=host_config)
            except APIError as error:
                if "bind source path does not exist" in _message(error):
                    return False
                if _status(error) == 404:
                    return True  # the mount is valid, only the image is missing
                raise
            client.remove_container(probe["Id"], force=True, v=True)  # with the image's volumes
            return True

        return await self._call("sees", sees)

    async def events(self, labels: Mapping[str, str]) -> AsyncGenerator[EngineEvent, None]:
        filters = {"type": "container", "event": sorted(FOLLOWED_EVENTS), "label": _label_filter(labels)}
        thread = EventThread(self._connected, filters, asyncio.get_running_loop())
        thread.start()
        try:
            while True:
                yield await thread.events.get()
        finally:
            thread.stop()

    def logs(self, container_id: str) -> LogStream:
        try:
            return DockerLogStream(self._connected(), container_id)
        except (*_CONNECTION_ERRORS, DockerException) as error:
            words = one_line(str(error.explanation or error)) if isinstance(error, APIError) else str(error)
            raise EngineUnavailable(
                f"The engine does not return the output of container {container_id[:12]}: {words}"
            ) from error

    async def ensure_network(self, name: str, bridge: str, labels: Mapping[str, str]) -> list[str]:
        return await self._call("ensure_network", lambda client: ensure_network(client, name, bridge, labels))

    async def remove_network(self, name: str) -> None:
        await self._call("remove_network", lambda client: remove_network(client, name))

    async def run_on_host(self, command: HostCommand) -> tuple[int, str]:
        return await self._call("run_on_host", lambda client: run_on_host(client, command))

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await asyncio.to_thread(self._client.close)

    async def _inspect_image(self, image: str) -> dict[str, Any] | None:
        return await self._call("inspect_image", lambda client: _inspect_image(client, image))

    async def _call(self, operation: str, call: Callable[[APIClient], T]) -> T:
        began = time.perf_counter()
        try:
            run = contextvars.copy_context().run  # progress is reported to the request
            return await asyncio.get_running_loop().run_in_executor(self._pool, run, self._guarded, call)
        finally:
            self._observe(operation, time.perf_counter() - began)

    def _guarded(self, call: Callable[[APIClient], T]) -> T:
        try:
            return call(self._connected())
        except APIError as error:
            kind = EngineUnavailable if _status(error) >= 500 else EngineRefused
            raise kind(f"The engine answered: {_message(error)}.", next=_SEE_LOG) from error
        except (*_CONNECTION_ERRORS, DockerException) as error:
            raise _unavailable(error) from error

    def _connected(self) -> APIClient:
        """Return the client, created once the engine answers, since its version is queried then."""
        with self._connecting:
            if self._client is None:
                self._client = APIClient(
                    version="auto", timeout=self._timeout, max_pool_size=CONNECTIONS, **kwargs_from_env()
                )
            return self._client


def _unavailable(error: Exception) -> EngineUnavailable:
    where = os.environ.get("DOCKER_HOST") or "the local socket"
    group = _group_of_closed_socket(Path(where.removeprefix("unix://") if "://" in where else LOCAL_SOCKET))
    if group is not None:
        return EngineUnavailable(
            f"The user {os.geteuid()} has no access to the Docker Engine at {where}: "
            f"the socket belongs to group {group}.",
            next=f"Add this user to group {group} (sudo usermod -aG docker USER, log in again) and restart "
            "the node; under compose remove DOCKER_GID from .env: the group is found automatically.",
        )
    return EngineUnavailable(
        f"The Docker Engine at {where} does not answer: {one_line(str(error))}",
        next="Start it (systemctl start docker) and give this user access to its socket (group docker).",
    )


def _group_of_closed_socket(socket: Path) -> int | None:
    """Return the gid of the socket if this user has no access; None if it is accessible or missing."""
    try:
        status = socket.stat()
    except OSError:
        return None
    return None if os.access(socket, os.R_OK | os.W_OK) else status.st_gid


def _create(client: APIClient, spec: ContainerSpec) -> Container:
    try:
        created = client.create_container(
            spec.image,
            list(spec.command) if spec.command is not None else None,
            name=spec.name,
            user=spec.user,
            environment=dict(spec.env),
            labels=dict(spec.labels),
            host_config=_host_config(client, spec),
        )
    except APIError as error:
        if _status(error) == 409:
            return _adopt(client, spec)
        raise launch_error(spec.image, _status(error), _message(error)) from error
    return Container(created["Id"], spec.name, dict(spec.labels), "created", killed=False)


def _adopt(client: APIClient, spec: ContainerSpec) -> Container:
    document = _unless_gone(lambda: client.inspect_container(spec.name))
    if document is None:  # an earlier call is still creating it, or it is being removed
        raise EngineUnavailable(f"The engine is still busy with a container named {spec.name}.")
    existing = read_container(document)
    if has_labels(existing.labels, spec.labels):
        if existing.state == "created" and document["HostConfig"]["NetworkMode"] != spec.network:
            # Created before an upgrade or a change of settings: it must not start on the old network.
            client.remove_container(existing.id, force=True, v=True)
            return _create(client, spec)
        return existing
    raise EngineRefused(
        f"Another container has the name {spec.name} already.",
        code="container-name-taken",
        next="Two nodes of the same name share this engine: change MAO_NODE of one of them, "
        f"or remove the container: docker rm -f {spec.name}.",
    )


def _host_config(client: APIClient, spec: ContainerSpec) -> Any:
    options: dict[str, Any] = {}
    if spec.cpu is not None:  # a quota may exceed the machine's cores; the engine refuses that of `nano_cpus`
        options |= {"cpu_period": CPU_PERIOD, "cpu_quota": max(1000, int(spec.cpu * CPU_PERIOD))}
    if spec.memory is not None:
        options |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
    return client.create_host_config(
        mounts=[Mount(b.target, b.source, type="bind", read_only=b.read_only) for b in spec.binds],
        tmpfs=dict.fromkeys(spec.scratch, "mode=1777") or None,
        network_mode=spec.network,
        cap_drop=["ALL"],
        cap_add=list(spec.capabilities) or None,
        group_add=[str(gid) for gid in spec.groups] or None,
        security_opt=None if spec.new_privileges else ["no-new-privileges:true"],
        pids_limit=spec.pids,
        init=True,
        # The engine's own copy wraps every line in JSON; ours is cut long before this limit.
        log_config=LogConfig(
            type="json-file",
            config={"max-size": str(max(SMALLEST_ENGINE_LOG, 4 * spec.log_max)), "max-file": "2"},
        ),
        **options,
    )


def _inspect(client: APIClient, container_id: str) -> Container | None:
    document = _unless_gone(lambda: client.inspect_container(container_id))
    return None if document is None else read_container(document)


def _inspect_image(client: APIClient, image: str) -> dict[str, Any] | None:
    try:
        return _unless_gone(lambda: client.inspect_image(image))  # type: ignore[no-untyped-call]  # untyped stub
    except APIError as error:
        if _status(error) == 400:
            raise pull_error(image, _message(error)) from error
        raise


def _pull(client: APIClient, image: str) -> None:
    repository, tag = parse_repository_tag(image)
    message, progress = None, PullProgress()
    try:
        for line in client.pull(repository, tag or "latest", stream=True, decode=True):
            report_progress(*progress.note(line))
            if "error" in line:
                message = one_line(str(line["error"])).rstrip(".")
                break
    except APIError as error:
        message = _message(error)
    if message is not None:
        raise pull_error(image, message, here=_inspect_image(client, image) is not None)


def _label_filter(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]


def _unless_gone(call: Callable[[], T], also: Iterable[int] = ()) -> T | None:
    """Return the result of a call; None if the engine answers 404 (or a status in `also`)."""
    try:
        return call()
    except APIError as error:
        if _status(error) in (404, *also):
            return None
        raise


def _status(error: APIError) -> int:
    return int(error.status_code or 500)


def _message(error: APIError) -> str:
    return one_line(str(error.explanation or error)).rstrip(".")
