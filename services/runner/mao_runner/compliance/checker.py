"""Checks whether an image complies with the rules for tools: runs it like a step, on a scratch workspace.

A second trial shows what the tool failed to write in the first one, even if it ignores such errors: the same
container runs as root, with only the capability to write to all files of its image, and is then removed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mao_runner.containers.data_dir import HostPaths, assign_owner
from mao_runner.containers.engine import ContainerMirror
from mao_runner.containers.network import ToolNetwork
from mao_runner.containers.outcome import plain_text
from mao_runner.containers.spec import REACH_FILES, check_host_network, kept_capabilities, workspace_binds
from mao_runner.drivers.protocol import Container, ContainerSpec, EngineRefused
from mao_runner.labels import CHECK
from mao_runner.logs.writer import LogUnavailable, LogWriter
from mao_shared.errors import MaoError
from mao_shared.host.data_dir import TOOL_DATA, DataDir, Workspace
from mao_shared.models import Limits, format_time
from mao_shared.models.run import TOOL_HOME
from mao_shared.models.tool import CheckReport, CheckRequest

from .report import (
    Subject,
    Trial,
    build_report,
    failed_finding,
    stray_paths,
    tried_paths,
)

NETWORK_TIMEOUT = 15.0  # seconds that a check waits for the tools' network
MIN_PROBE_SECONDS = 1.0  # for the second trial, after the first has used the request's timeout
ROOT_USER = "0:0"


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """Settings of checks.

    Attributes:
        max_checks: checks that run at the same time.
        tool_uid: user of the tools if the node itself runs as root.
        operators: see `check_host_network`.
        now: returns the current time.
        pins: returns for an image reference this node's pipelines with the digests they pinned.
    """

    max_checks: int
    tool_uid: int
    operators: frozenset[int]
    now: Callable[[], datetime]
    pins: Callable[[str], Awaitable[Mapping[str, str]]]


class Checker:
    """Runs checks; `active` are the names of those in progress."""

    def __init__(
        self,
        containers: ContainerMirror,
        logs: LogWriter,
        paths: HostPaths,
        network: ToolNetwork,
        policy: CheckPolicy,
    ) -> None:
        self.active: set[str] = set()
        self._containers = containers
        self._driver = containers.driver
        self._logs = logs
        self._paths = paths
        self._network = network
        self._policy = policy
        self._semaphore = asyncio.Semaphore(policy.max_checks)

    async def check(self, request: CheckRequest) -> CheckReport:
        """Check an image. Raises Unavailable for the engine, the image's registry and the tools' network; all
        other problems are in the report."""
        try:
            image = await self._driver.resolve(request.image, request.pull)
        except MaoError as error:
            if error.status != 422:
                raise
            return build_report(
                request, None, None, image_finding=failed_finding("image", error.detail, error.next)
            )
        config = await self._driver.image_config(image.pinned)
        subject = Subject(image, config, await self._policy.pins(request.image))
        if request.network == "bridge":
            await self._network.wait_usable(NETWORK_TIMEOUT)
        async with self._semaphore:
            return await self._try(request, subject)

    async def _try(self, request: CheckRequest, subject: Subject) -> CheckReport:
        name = f"check-{secrets.token_hex(6)}"
        root = DataDir(self._paths.data_dir).run_workspaces(name)
        self.active.add(name)
        try:
            began = time.monotonic()
            trial = await self._run(request, subject.image.pinned, name, Workspace(root))
            seconds = time.monotonic() - began
        finally:
            await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
            self.active.discard(name)
        return build_report(request, subject, trial, seconds=seconds, log=plain_text(trial.log))

    async def _run(self, request: CheckRequest, image: str, name: str, workspace: Workspace) -> Trial:
        try:
            spec = await self._spec(request, image, name, workspace)
        except EngineRefused as error:
            return Trial(None, refusal=error.detail)
        began = time.monotonic()
        trial, changed = await self._trial(spec, request.timeout, workspace)
        if trial.container is None or trial.timed_out or request.once or not may_probe(spec):
            return trial
        left = max(MIN_PROBE_SECONDS, request.timeout - (time.monotonic() - began))
        probe = replace(  # nothing that root writes reaches the host
            spec,
            name=f"{spec.name}-2",
            user=ROOT_USER,
            capabilities=[REACH_FILES],
            new_privileges=False,
            binds=[bind for bind in spec.binds if bind.target != TOOL_DATA],
            scratch=[TOOL_DATA],
        )
        probed, reached = await self._trial(probe, left, workspace)
        if probed.container is None:
            return trial
        return replace(trial, tried=tuple(tried_paths(reached, changed)), probed=probed.container.exit_code)

    async def _trial(
        self, spec: ContainerSpec, timeout: float, workspace: Workspace
    ) -> tuple[Trial, list[str]]:
        """Run a container; return the trial and the changed paths of the container's own file system."""
        container = None
        try:
            container = await self._driver.create(spec)
            await self._driver.start(container.id)
            ended = await self._wait(container, timeout)
            changed = await self._driver.changed_paths(container.id)
            written = tuple(await asyncio.to_thread(list_files, workspace.data))
            try:
                log = (await self._logs.copy_once(container.id, workspace.root / f"{spec.name}.log")).tail
            except LogUnavailable as error:
                log = f"[mao] {error.detail}\n"
            trial = Trial(
                container=ended,
                timed_out=ended.exit_code is None,
                user=spec.user,
                capabilities=spec.capabilities,
                written=written,
                elsewhere=tuple(stray_paths(changed)),
                timeout=timeout,
                log=log,
            )
            return trial, changed
        except EngineRefused as error:
            return Trial(None, refusal=error.detail), []
        finally:
            if container is not None:
                await self._driver.remove(container.id)
                self._containers.forget(container.name)

    async def _spec(
        self, request: CheckRequest, image: str, name: str, workspace: Workspace
    ) -> ContainerSpec:
        """Prepare the workspace; return the container of the first trial. Raises EngineRefused."""
        user = await asyncio.to_thread(self._create_workspace, workspace, request)
        check_host_network(request.network, request.privileges, user, self._policy.operators)
        limits = Limits()
        env = {
            "MAO_RUN_ID": name,
            "MAO_NODE": "check",
            "MAO_PIPELINE": "check",
            "MAO_STEP": "check",
            "MAO_ATTEMPT": "1",
            "MAO_SCHEDULED_FOR": format_time(self._policy.now().replace(microsecond=0)),
        }
        return ContainerSpec(
            name=f"mao-{name}",
            image=image,
            labels={**self._containers.labels, CHECK: name},
            command=request.command,
            env={"HOME": TOOL_HOME, **request.env, **env},
            binds=workspace_binds(self._paths.host(workspace.data), self._paths.host(workspace.input)),
            user=user,
            memory=limits.memory,
            pids=limits.pids,
            network=self._network.engine_name(request.network),
            capabilities=kept_capabilities(request.privileges),
            new_privileges=request.privileges.new_privileges,
        )

    def _create_workspace(self, workspace: Workspace, request: CheckRequest) -> str:
        workspace.data.mkdir(parents=True)
        workspace.input.mkdir()
        workspace.input.chmod(0o755)  # whatever the umask, since another user reads it
        for name, text in request.input.items():
            (workspace.input / name).write_text(text)
            (workspace.input / name).chmod(0o644)
        return assign_owner(workspace.data, self._policy.tool_uid, request.privileges.user)

    async def _wait(self, container: Container, seconds: float) -> Container:
        """Return the ended container; without an exit code if it had to be killed."""
        try:
            async with asyncio.timeout(seconds):
                return await self._containers.ended(container)
        except TimeoutError:
            await self._driver.signal(container.id, "KILL")
            return container


def may_probe(spec: ContainerSpec) -> bool:
    """Return True if a second trial is useful and safe: root on the host's network could control the node."""
    return spec.network != "host" and not spec.user.startswith("0:")


def list_files(folder: Path) -> list[str]:
    """Return the relative paths of all files in a folder. Blocks."""
    return sorted(
        str((Path(at) / name).relative_to(folder)) for at, _, names in os.walk(folder) for name in names
    )
