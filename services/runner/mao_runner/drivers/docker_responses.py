"""Parses what Docker Engine sends: documents, errors, output and events.

The engine has no error codes, so errors are distinguished by HTTP status and wording.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import urllib3
from docker.types.daemon import CancellableStream

from mao_shared.errors import EngineUnavailable, InvalidInput, MaoError

from .protocol import (
    Connected,
    Container,
    ContainerEvent,
    ContainerState,
    Disconnected,
    EngineEvent,
    EngineRefused,
    ImageConfig,
    RegistryUnavailable,
    image_not_found,
)

_STATES: dict[str, ContainerState] = {
    "created": "created",
    "running": "running",
    "paused": "running",
    "restarting": "running",
    "removing": "exited",
    "exited": "exited",
    "dead": "exited",
}

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*Z")
FOLLOWED_EVENTS = frozenset({"start", "kill", "oom", "die", "destroy"})
MAX_MESSAGE = 400
ZERO_YEAR = 1  # the year of times that are not set


def read_container(document: Mapping[str, Any]) -> Container:
    """Read the answer of `GET /containers/{id}/json`."""
    state = document["State"]
    ours = _STATES.get(state["Status"], "running")
    ended = ours == "exited"
    return Container(
        id=document["Id"],
        name=document["Name"].removeprefix("/"),
        labels=document["Config"].get("Labels") or {},
        state=ours,
        exit_code=state["ExitCode"] if ended else None,
        oom=bool(state.get("OOMKilled")),
        finished_at=read_time(state.get("FinishedAt", "")) if ended else None,
    )


def read_image_config(document: Mapping[str, Any]) -> ImageConfig:
    """Read the answer of `GET /images/{name}/json`."""
    config = document.get("Config") or {}
    words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    return ImageConfig(
        workdir=config.get("WorkingDir") or "/",
        volumes=sorted(config.get("Volumes") or {}),
        words=[str(word) for word in words],
    )


def read_event(event: Mapping[str, Any]) -> ContainerEvent | None:
    """Read one line of `GET /events`; return None for events that are not followed."""
    what, actor = event.get("Action"), event.get("Actor") or {}
    if what not in FOLLOWED_EVENTS:
        return None
    attributes = actor.get("Attributes") or {}
    code = attributes.get("exitCode")
    return ContainerEvent(
        what=what,
        id=actor["ID"],
        name=attributes.get("name", ""),
        labels=attributes,
        at=datetime.fromtimestamp(event["timeNano"] / 1e9, UTC),
        exit_code=int(code) if code is not None else None,
    )


def read_time(text: str) -> datetime | None:
    """Parse a time with nanoseconds; return None for the engine's zero time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    moment = datetime.fromisoformat(match[1] + (match[2] or "")).replace(tzinfo=UTC)
    return None if moment.year == ZERO_YEAR else moment


def pinned_reference(name: str, document: Mapping[str, Any]) -> str:
    """Return `repository@sha256:…` of the registry the image came from, else the image's id.

    An image may have been pushed to several registries; the digest is that of the repository in `name`.
    """
    repository = _repository_name(name)
    for digest in document.get("RepoDigests") or []:
        if _repository_name(digest) == repository:
            return str(digest)
    return str(document["Id"])


def _repository_name(name: str) -> str:
    bare = name.partition("@")[0]
    head, _, last = bare.rpartition("/")
    path = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    return path.removeprefix("docker.io/").removeprefix("library/")


def image_platform(document: Mapping[str, Any]) -> str:
    """Return the image's platform as os/architecture[/variant]."""
    parts = (document.get(key) for key in ("Os", "Architecture", "Variant"))
    return "/".join(str(part) for part in parts if part)


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return True if `labels` contains all wanted labels with their values."""
    return all(labels.get(name) == value for name, value in wanted.items())


def one_line(words: str) -> str:
    """Join a text to one line of at most MAX_MESSAGE characters."""
    line = " ".join(words.split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


ACCESS_DENIED = ("denied", "unauthorized", "authentication required", "no basic auth")

NOT_FOUND = (
    "not found",
    "does not exist",
    "manifest unknown",
    "no such image",
    "no matching manifest",
    "name unknown",
)

INVALID_REFERENCE = ("invalid reference format", "repository name must be")

CANNOT_EXECUTE = (
    "executable file not found",
    "permission denied",
    "no such file or directory",
    "exec format error",
    "is a directory",
    "no command specified",
    "unable to find user",
)

_NO_NETWORK = re.compile(r"network (\S+) not found")


def pull_error(image: str, words: str, *, here: bool = False) -> MaoError:
    """Return the error for an image that could not be pulled. `here`: an older one is on this node.

    A public registry answers alike for private and for missing images; the latter is more likely.
    """
    if _contains_any(words, INVALID_REFERENCE):
        return InvalidInput(
            f"{image!r} is not an image reference: {words}.",
            code="image-invalid",
            next="Write it like 'busybox:1.36' or 'registry.example.org/lab/crawler:1.4'.",
        )
    if _contains_any(words, NOT_FOUND):
        return image_not_found(image, words)
    if _contains_any(words, ACCESS_DENIED):
        return InvalidInput(
            f"The registry refuses the image {image} to this node: {words}.",
            code="image-pull-denied",
            next="Check the name; for a private image run 'docker login' for its registry on this node.",
        )
    if not here:
        return image_not_found(image, f"it is not on this node, and its registry does not answer: {words}")
    return RegistryUnavailable(
        f"The registry of the image {image} does not answer: {words}.",
        next="Check the network, or use the image as it is on this node with the pull policy 'missing'.",
    )


def launch_error(image: str, status: int, words: str) -> EngineRefused:
    """Return the error for a container that could not be created or started."""
    if "bind source path does not exist" in words:
        return EngineRefused(
            f"The engine does not find the step's workspace: {words}.",
            code="workspace-missing",
            next="Check that the data directory exists and MAO_HOSTDIR is right: maoctl doctor",
        )
    if status == 404 and (network := _NO_NETWORK.search(words)):
        return EngineRefused(
            f"The network {network[1]} has been removed from the engine.",
            code="tool-network-missing",
            next="The runner creates it again; no action is needed.",
        )
    if status == 404 and _contains_any(words, NOT_FOUND):
        return EngineRefused(
            f"The image {image} has been removed from this node.",
            code="image-not-found",
            next=f"Pull it (docker pull {image}) or enrol again to pin another; then run the pipeline again.",
        )
    if _contains_any(words, CANNOT_EXECUTE):
        return EngineRefused(
            f"The tool's command cannot be started: {words}.",
            code="tool-cannot-start",
            next="Check command and entry point of the image: maoctl tool check IMAGE",
        )
    return EngineRefused(
        f"The engine refuses the container: {words}.",
        next="See the engine's log: journalctl -u docker.",
    )


def _contains_any(words: str, signs: Iterable[str]) -> bool:
    lower = words.lower()
    return any(sign in lower for sign in signs)


_HEADER = struct.Struct(">BxxxL")  # stream and number of bytes that follow
_ENGINE_STREAM = 3  # the stream of the engine's own errors
_CHUNK_BYTES = 64 * 1024  # bytes


class DockerStream:
    """Wraps the SDK's CancellableStream, which another thread can end but which never closes its response."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._stream
        finally:
            self.release()

    def close(self) -> None:
        """End the iteration, from any thread; the thread that iterates closes the connection."""
        with contextlib.suppress(Exception):  # it has ended already, in one of several ways
            self._stream.close()

    def release(self) -> None:
        """Close the connection; call it in the thread that reads, or when none reads."""
        self._stream._response.close()


class DockerLogStream:
    """A container's output, read strictly; see `LogStream`.

    The SDK's own reader takes a broken connection for the end of the output, and an error of the engine for
    output of the tool.
    """

    def __init__(self, client: Any, container_id: str) -> None:
        wanted = {"stdout": 1, "stderr": 1, "follow": 1, "tail": "all"}
        url = client._url("/containers/{0}/logs", container_id)
        self._response = client._get(url, params=wanted, stream=True)
        try:
            client._raise_for_status(self._response)
            client._disable_socket_timeout(client._get_raw_response_socket(self._response))
        except BaseException:
            self._response.close()
            raise
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while header := self._read(_HEADER.size, may_end=True):
                kind, length = _HEADER.unpack(header)
                if kind == _ENGINE_STREAM:
                    words = self._read(length).decode(errors="replace").strip()
                    raise EngineUnavailable(f"The engine cannot read further output: {words}")
                while length:
                    piece = self._read(min(length, _CHUNK_BYTES))
                    length -= len(piece)
                    yield piece
        except (OSError, ValueError, AttributeError, HTTPException, urllib3.exceptions.HTTPError) as error:
            if self._closed:
                return
            raise EngineUnavailable(f"The engine closed the output stream early: {error}") from error
        finally:
            self._response.close()

    def _read(self, size: int, *, may_end: bool = False) -> bytes:
        """Read exactly `size` bytes; with `may_end`, none at the end of the output."""
        data = b""
        while len(data) < size:
            more: bytes = self._response.raw.read(size - len(data))
            if not more:
                if may_end and not data:
                    return b""
                raise EngineUnavailable("The engine closed the output stream within a line.")
            data += more
        return data

    def close(self) -> None:
        """End the iteration, from any thread; the thread that iterates closes the connection."""
        self._closed = True
        with contextlib.suppress(Exception):  # it has ended already, in one of several ways
            CancellableStream(iter(()), self._response).close()


RECONNECT_DELAY, MAX_RECONNECT_DELAY = 0.2, 5.0  # seconds between attempts to connect


class EventThread(threading.Thread):
    """Reads events until `stop`, and reconnects whenever the stream ends; see `Driver.events`.

    Args:
        connect: returns the SDK's client, or raises.
        filters: of the events call.
        loop: that reads the queue `events`.
    """

    def __init__(
        self, connect: Callable[[], Any], filters: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="engine-events", daemon=True)
        self.events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._connect = connect
        self._filters = filters
        self._loop = loop
        self._stopping = threading.Event()
        self._stream: DockerStream | None = None
        self._pause = RECONNECT_DELAY

    def run(self) -> None:
        while not self._stopping.is_set():
            reason = "its stream of events ended"
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 (the next attempt may succeed)
                reason = one_line(str(error))
            self._put(Disconnected(reason))
            self._stopping.wait(self._pause)
            self._pause = min(self._pause * 2, MAX_RECONNECT_DELAY)

    def stop(self) -> None:
        """End the thread soon; may be called from any thread."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()

    def _read(self) -> None:
        # `since` covers the time between the engine's answer and its subscription; events of this second
        # that are repeated do no harm.
        since = int(time.time())
        client = self._connect()
        self._stream = DockerStream(client.events(filters=self._filters, decode=True, since=since))
        self._pause = RECONNECT_DELAY
        if self._stopping.is_set():
            self._stream.release()
            return
        self._put(Connected())
        for raw in self._stream:
            if (event := read_event(raw)) is not None:
                self._put(event)

    def _put(self, event: EngineEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)
