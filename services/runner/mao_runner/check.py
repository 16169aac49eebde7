"""Whether an image complies: run once as a step would be, on a scratch workspace, and looked at."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mao_shared.errors import MaoError
from mao_shared.models import Limits, Record, ResolvedImage
from mao_shared.models.common import Command, Env, Seconds
from mao_shared.models.pipeline import Pull
from mao_shared.models.tool import Image
from mao_shared.tool_env import HOME
from mao_shared.workspace import TOOL_DATA, TOOL_INPUT, DataDir, Workspace

from .container import workspace_binds
from .drivers import Container, ContainerSpec, EngineRefused
from .hostdir import HostPaths
from .labels import CHECK
from .logs import Logs, LogUnavailable
from .network import ToolNetwork
from .observe import Containers
from .outcome import plain_text
from .ownership import claim_data

ALLOWED = (TOOL_DATA, TOOL_INPUT, "/tmp", "/run", "/var/run", "/dev", "/proc", "/sys")  # noqa: S108
ENGINE_OWN = (
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
)
NAMED_PATHS = 20
NETWORK_LIMIT = 15.0  # seconds that a check waits for the tools' network


InputName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
InputText = Annotated[str, Field(max_length=1024**2)]


class CheckRequest(Record):
    """Body of `POST /tools/check`. `timeout` in seconds; `input`: text files by name, as its input."""

    image: Image
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    input: dict[InputName, InputText] = Field(
        default_factory=dict, max_length=20, examples=[{"performance.csv": "node,hash_mb_s\nn1,180\n"}]
    )
    timeout: Seconds = Field(default=60, gt=0, le=3600)
    pull: Pull = "missing"


class Finding(Record):
    """One thing that was looked at, in words; `advice` when it is not as it should be."""

    name: Literal["image", "ends", "exit-code", "unattended", "non-root", "writes-data", "writes-only-data"]
    ok: bool
    detail: str
    advice: str | None = None


class CheckReport(Record):
    """What a check has found. `written`: files under /usr/src/app/data."""

    image: str
    compliant: bool
    pinned: str | None = None
    findings: list[Finding]
    exit_code: int | None = None
    seconds: float | None = None
    written: list[str] = Field(default_factory=list)
    log: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a container did. `container` is None when it could not be started (`refusal` says why)."""

    container: Container | None
    timed_out: bool = False
    user: str = ""
    written: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    refusal: str = ""
    timeout: float = 0
    log: str = ""


class Checker:
    """Runs checks, at most `most` at a time."""

    def __init__(
        self,
        containers: Containers,
        logs: Logs,
        paths: HostPaths,
        network: ToolNetwork,
        *,
        most: int,
        tool_uid: int,
    ) -> None:
        self.active: set[str] = set()
        self._containers = containers
        self._driver = containers.driver
        self._logs = logs
        self._paths = paths
        self._network = network
        self._places = asyncio.Semaphore(most)
        self._tool_uid = tool_uid

    async def check(self, request: CheckRequest) -> CheckReport:
        """Raises Unavailable when engine or registry do not answer, and why the tools' network cannot be
        used; all else is in the report."""
        try:
            image = await self._driver.resolve(request.image, request.pull)
        except MaoError as error:
            if error.status != 422:
                raise
            return report(request, None, None, image_finding=_failed("image", error.detail, error.next))
        await self._network.until_usable(NETWORK_LIMIT)
        async with self._places:
            return await self._try(request, image)

    async def _try(self, request: CheckRequest, image: ResolvedImage) -> CheckReport:
        name = f"check-{secrets.token_hex(6)}"
        root = DataDir(self._paths.data_dir).run_workspaces(name)
        self.active.add(name)
        try:
            began = time.monotonic()
            trial = await self._run(request, image, name, Workspace(root))
            seconds = time.monotonic() - began
        finally:
            await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
            self.active.discard(name)
        return report(request, image, trial, seconds=seconds, log=plain_text(trial.log))

    async def _run(
        self, request: CheckRequest, image: ResolvedImage, name: str, workspace: Workspace
    ) -> Trial:
        spec = await self._spec(request, image, name, workspace)
        made = None
        try:
            made = await self._driver.create(spec)
            await self._driver.start(made.id)
            ended = await self._wait(made, request.timeout)
            said = await self._said(made, workspace.root / "log")
            return Trial(
                container=ended,
                timed_out=ended.exit_code is None,
                user=spec.user,
                written=tuple(await asyncio.to_thread(files_under, workspace.data)),
                elsewhere=tuple(stray_paths(await self._driver.changed_paths(made.id))),
                timeout=request.timeout,
                log=said,
            )
        except EngineRefused as error:
            return Trial(None, refusal=error.detail)
        finally:
            if made is not None:
                await self._driver.remove(made.id)
                self._containers.forget(made.name)

    async def _spec(
        self, request: CheckRequest, image: ResolvedImage, name: str, workspace: Workspace
    ) -> ContainerSpec:
        user = await asyncio.to_thread(self._lay, workspace, request.input)
        limits = Limits()
        env = {"MAO_RUN_ID": name, "MAO_NODE": "check", "MAO_PIPELINE": "check"}
        return ContainerSpec(
            name=f"mao-{name}",
            image=image.pinned,
            labels={**self._containers.labels, CHECK: name},
            command=request.command,
            env={"HOME": HOME, **request.env, **env, "MAO_STEP": "check", "MAO_ATTEMPT": "1"},
            binds=workspace_binds(self._paths.host(workspace.data), self._paths.host(workspace.input)),
            user=user,
            memory=limits.memory,
            pids=limits.pids,
            network=self._network.engine_name("bridge"),
        )

    async def _said(self, ended: Container, path: Path) -> str:
        """The end of its log, or why there is none to show."""
        try:
            return (await self._logs.copy_once(ended.id, path)).tail
        except LogUnavailable as error:
            return f"[mao] {error.detail}\n"

    def _lay(self, workspace: Workspace, given: Mapping[str, str]) -> str:
        workspace.data.mkdir(parents=True)
        workspace.input.mkdir()
        workspace.input.chmod(0o755)  # whatever the umask: another user is to read it
        for name, text in given.items():
            (workspace.input / name).write_text(text)
            (workspace.input / name).chmod(0o644)
        return claim_data(workspace.data, self._tool_uid)

    async def _wait(self, made: Container, seconds: float) -> Container:
        """The ended container; one that had to be killed has no exit code."""
        try:
            async with asyncio.timeout(seconds):
                return await self._containers.ended(made)
        except TimeoutError:
            await self._driver.signal(made.id, "KILL")
            return made


def report(
    request: CheckRequest,
    image: ResolvedImage | None,
    trial: Trial | None,
    *,
    image_finding: Finding | None = None,
    seconds: float | None = None,
    log: str = "",
) -> CheckReport:
    """The report of a check: pure."""
    pinned = image.pinned if image else None
    findings = [image_finding or Finding(name="image", ok=True, detail=f"found as {pinned}")]
    if trial is not None:
        findings += judge(trial)
    return CheckReport(
        image=request.image,
        compliant=all(finding.ok for finding in findings),
        pinned=pinned,
        findings=findings,
        exit_code=trial.container.exit_code if trial and trial.container else None,
        seconds=round(seconds, 3) if seconds is not None else None,
        written=list(trial.written) if trial else [],
        log=log,
    )


_START_ADVICE = (
    "Check the image's entry point and command; whether the engine starts containers at all tells: "
    "docker run --rm IMAGE."
)


def judge(trial: Trial) -> list[Finding]:
    """What a trial shows about a tool: pure."""
    if trial.container is None:
        return [_failed("ends", trial.refusal, _START_ADVICE)]
    return [
        *_ending(trial, trial.container),
        Finding(name="non-root", ok=True, detail=f"ran as {trial.user} without capabilities"),
        _writes_data(trial),
        _writes_only_data(trial),
    ]


def _ending(trial: Trial, container: Container) -> list[Finding]:
    if trial.timed_out:
        detail = f"still ran after {trial.timeout:g} s"
        advice = "Let it end by itself, and read nothing from a terminal; or check with a longer timeout."
        return [_failed("ends", detail, advice), _failed("unattended", "cannot be told before it ends", None)]
    code = container.exit_code
    ends = Finding(name="ends", ok=True, detail="ended by itself")
    alone = Finding(name="unattended", ok=code == 0, detail="ran with stdin closed and no terminal")
    if code == 0:
        return [ends, alone, Finding(name="exit-code", ok=True, detail="exited with 0")]
    advice = "Its log says why. It runs as an ordinary user, without capabilities, and with stdin closed."
    alone = alone.model_copy(update={"detail": "did not succeed with stdin closed and no terminal"})
    return [ends, alone, _failed("exit-code", f"exited with {code}", advice)]


def _writes_data(trial: Trial) -> Finding:
    if trial.written:
        return Finding(name="writes-data", ok=True, detail=f"wrote {len(trial.written)} file(s)")
    return _failed("writes-data", f"wrote nothing under {TOOL_DATA}", f"Write the results to {TOOL_DATA}.")


def _writes_only_data(trial: Trial) -> Finding:
    if not trial.elsewhere:
        return Finding(
            name="writes-only-data", ok=True, detail=f"wrote nowhere else than {TOOL_DATA} and /tmp"
        )
    named = ", ".join(trial.elsewhere[:NAMED_PATHS])
    advice = f"Write results to {TOOL_DATA} and scratch files to /tmp; all else is lost when it ends."
    return _failed("writes-only-data", f"wrote to {named}", advice)


def _failed(name: str, detail: str, advice: str | None) -> Finding:
    return Finding.model_validate({"name": name, "ok": False, "detail": detail, "advice": advice})


def stray_paths(changed: Iterable[str]) -> list[str]:
    """Of the paths that differ from the image, those a tool should not have touched: pure.

    A folder is listed with what changed in it, and mount points with their parents; only the deepest count.
    """
    paths = sorted(set(changed))
    deepest = [p for p, after in zip(paths, [*paths[1:], ""], strict=True) if not after.startswith(p + "/")]
    return [path for path in deepest if not _allowed(path)]


def _allowed(path: str) -> bool:
    if path in ENGINE_OWN:
        return True
    return any(path == each or path.startswith(each + "/") or each.startswith(path + "/") for each in ALLOWED)


def files_under(folder: Path) -> list[str]:
    """Relative paths of all files. Blocks."""
    return sorted(
        str((Path(at) / name).relative_to(folder)) for at, _, names in os.walk(folder) for name in names
    )
