"""Serves remotes on this node read-only over HTTP, with Git LFS: `git clone http://NODE/git/NAME.git`.

Under compose, or as another user, a client cannot read the folder of such a remote, but it can reach the
gateway. Requests are served by git's own upload-pack. Pushes bypass the gateway.

LFS content is served by the batch API, for downloads only:
https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mao_datamgmt.context import Context
from mao_datamgmt.datasets.clones import clone_remote_url
from mao_datamgmt.git_executor import GitExecutor
from mao_shared.errors import Forbidden, InvalidInput, NotFound, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Dataset

UPLOAD_PACK = "git-upload-pack"
MAX_PROCESSES = 4  # further requests wait
QUEUE_SECONDS = 60.0  # a request waits this long for a free process; a slow reader may occupy one for long
MAX_REQUEST_BYTES = 8 << 20  # decompressed; a request lists what the client has and wants
_CHUNK = 64 << 10
_PROTOCOL = re.compile(r"version=[012]")
_GZIP = 31  # zlib's window size for gzip with the largest window
MEDIA_TYPE = "application/vnd.git-lfs+json"


log = get_logger(__name__)


class ReadOnly(Forbidden):
    """A client tried to push or upload."""

    default_code = "git-read-only"


def check_git_service(service: str | None) -> None:
    """Raise ReadOnly for a push, InvalidInput for the "dumb" protocol of git before 1.6.6."""
    if service == UPLOAD_PACK:
        return
    if service == "git-receive-pack":
        raise ReadOnly(
            "This address is read-only: a dataset cannot be pushed to through the node.",
            next="Let a tool write it, or push to the remote that 'maoctl dataset show NAME' shows.",
        )
    raise InvalidInput("Only git's smart HTTP protocol is supported.", next="Use git 1.6.6 or later.")


def decompress_request(body: bytes, encoding: str | None) -> bytes:
    """Decompress a request body: git compresses long ones. Raises InvalidInput."""
    if encoding is None:
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise InvalidInput(f"The content encoding {encoding} is not supported.", next="Use git itself.")
    decompressor = zlib.decompressobj(_GZIP)
    try:
        plain = decompressor.decompress(body, MAX_REQUEST_BYTES)
    except zlib.error as error:
        raise InvalidInput(f"The body is not gzip: {error}.", next="Use git itself.") from error
    if not decompressor.eof:
        raise InvalidInput("The body is truncated or too large.", next="Clone again instead of fetching.")
    return plain


def parse_protocol(header: str | None) -> str | None:
    """Return the protocol version that a client requests, or None if it is unknown."""
    return header if header is not None and _PROTOCOL.fullmatch(header) else None


class UploadPack:
    """Runs `git upload-pack`. One instance serves all requests, to limit the number of processes.

    `declared` looks up a dataset in the registry; it is called for one that has no clone on this node.
    """

    def __init__(
        self,
        context: Context,
        executor: GitExecutor,
        declared: Callable[[str], Awaitable[Dataset | None]],
        git: str = "git",
    ) -> None:
        self._context, self._executor, self._declared = context, executor, declared
        self._git = git
        self._slots = asyncio.Semaphore(MAX_PROCESSES)

    async def repository(self, name: str) -> Path:
        """Return the path of a dataset's remote on this node.

        Raises NotFound (also for a remote on another machine), Forbidden (`remote-not-allowed`), Unavailable.
        """
        try:
            master = await self._executor.read(clone_remote_url, self._context, name)
        except NotFound:
            declared = await self._declared(name)
            if declared is None:
                raise
            master = declared.master
        return await self._executor.read(self._local, name, master)

    def _local(self, name: str, master: str) -> Path:
        path = self._context.access.local(master)
        if path is None:
            raise NotFound(
                f"The remote of dataset {name!r} is not on this node: it is {master}.",
                code="git-remote-elsewhere",
                next=f"Clone it from there: git clone {master}",
            )
        if not path.is_dir():
            raise NotFound(
                f"There is no repository at {master}.", next=f"Compare its record: maoctl dataset show {name}"
            )
        return path

    async def advertise(self, path: Path, protocol: str | None) -> AsyncGenerator[bytes]:
        """Return the list of references, which a client requests first.

        Raises Unavailable (`git-missing`, `git-busy`).
        """
        head = b"" if protocol == "version=2" else _pkt_line(f"# service={UPLOAD_PACK}\n") + b"0000"
        return await _wait_for_first(self._run(path, ["--advertise-refs"], b"", protocol, head))

    async def answer(self, path: Path, request: bytes, protocol: str | None) -> AsyncGenerator[bytes]:
        """Return the pack that a client requests. Raises Unavailable like `advertise`."""
        return await _wait_for_first(self._run(path, [], request, protocol, b""))

    async def _run(
        self, path: Path, options: list[str], request: bytes, protocol: str | None, head: bytes
    ) -> AsyncGenerator[bytes]:
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"git is already serving {MAX_PROCESSES} requests.",
                code="git-busy",
                next="Try again in a minute.",
            ) from error
        try:
            process = await self._start(path, options, protocol)
            writing = asyncio.create_task(_write_request(process, request))
            try:
                yield head
                assert process.stdout is not None  # noqa: S101 (a pipe, see `_start`)
                while piece := await process.stdout.read(_CHUNK):
                    yield piece
                if await process.wait():
                    log.warning("git.not_served", path=str(path), code=process.returncode)
            finally:
                writing.cancel()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        finally:
            self._slots.release()

    async def _start(
        self, path: Path, options: list[str], protocol: str | None
    ) -> asyncio.subprocess.Process:
        arguments = ["upload-pack", "--strict", "--stateless-rpc", *options, str(path)]
        try:
            return await asyncio.create_subprocess_exec(
                self._git,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(protocol),
            )
        except OSError as error:
            raise Unavailable(
                f"git cannot be started on the node: {error.strerror}.",
                code="git-missing",
                next="Install git there, or download an archive instead: maoctl dataset download NAME",
            ) from error


async def _wait_for_first(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Wait for the first piece, so that a failure to start becomes an HTTP error; then return all pieces."""
    first = await anext(pieces)

    async def rest() -> AsyncGenerator[bytes]:
        try:
            yield first
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    return rest()


async def _write_request(process: asyncio.subprocess.Process, request: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 (a pipe, see `_start`)
    try:
        process.stdin.write(request)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # git has exited; `_run` logs its exit code
    finally:
        process.stdin.close()


def _environment(protocol: str | None) -> dict[str, str]:
    """Return git's environment: no user's configuration is read, and the folder may have any owner."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_NO_LAZY_FETCH": "1",  # no promisor remote in the repository's configuration is contacted
        **({"GIT_PROTOCOL": protocol} if protocol else {}),
    }


def _pkt_line(text: str) -> bytes:
    """Format a pkt-line: its total length as four hexadecimal digits, then the text."""
    return f"{len(text) + 4:04x}{text}".encode()


Oid = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content", examples=["ab" * 32])
]


class BatchObject(BaseModel):
    """An object that a client requests; `size` in bytes."""

    oid: Oid
    size: int = Field(ge=0, examples=[1048576])


class BatchRequest(BaseModel):
    """Body of `POST /git/NAME.git/info/lfs/objects/batch`; other fields of git-lfs are ignored."""

    operation: str = Field(max_length=100, examples=["download"])
    objects: list[BatchObject] = Field(max_length=10_000, examples=[[{"oid": "ab" * 32, "size": 1048576}]])


def answer_batch(batch: BatchRequest, repository: Path, base: str) -> dict[str, Any]:
    """Return the response to git-lfs. `base` is the repository's URL as the client uses it.

    Raises ReadOnly for uploads. Blocking: it stats the files.
    """
    if batch.operation != "download":
        raise ReadOnly("Nothing can be uploaded through the node.", next="Let a tool write it.")
    objects = []
    for requested in batch.objects:
        entry: dict[str, Any] = {"oid": requested.oid, "size": requested.size}
        try:
            lfs_file(repository, requested.oid)
            entry["actions"] = {"download": {"href": f"{base}/lfs/{requested.oid}"}}
        except NotFound as error:
            entry["error"] = {"code": 404, "message": error.detail}
        objects.append(entry)
    return {"transfer": "basic", "objects": objects}


def lfs_file(repository: Path, oid: str) -> Path:
    """Return the path of LFS content in a repository on this machine.

    Raises NotFound, also for a link that leads out of the repository.
    """
    path = repository / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    if not path.is_file() or not path.resolve().is_relative_to(repository.resolve()):
        raise NotFound(
            f"The content {oid[:12]}… of a large file is not in the remote {repository}.",
            code="lfs-content-missing",
            next="Push it from a clone that has it (git lfs push --all origin), then retry.",
        )
    return path
