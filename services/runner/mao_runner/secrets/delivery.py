"""Gives a step its secrets: in variables of its container, or as files in memory that are mounted into it.

The files are below a folder that only the node's user may enter, on a tmpfs, one folder for each attempt of a
step. They are removed when the run is no longer the runner's, and at the start for runs that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mao_runner.containers.data_dir import find_host_path
from mao_runner.drivers.protocol import Bind, Driver, EngineRefused
from mao_runner.labels import StepAttempt
from mao_shared.errors import MaoError, Unavailable
from mao_shared.host.files import FOLDER_MODE
from mao_shared.logs import get_logger
from mao_shared.models import ResolvedStep
from mao_shared.models.secret import TOOL_SECRETS

from .kept import Secrets

log = get_logger(__name__)

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
# The folder above keeps other users of the host out; inside its container a tool may have any uid, and the
# mount is read-only. The node's user, who may not be root, has to be able to remove the files.
_FOLDER, _FILE = 0o755, 0o444


@dataclass(frozen=True, slots=True)
class GivenSecrets:
    """What a container gets: variables, and a folder to mount."""

    env: Mapping[str, str] = field(default_factory=dict)
    binds: Sequence[Bind] = ()


class SecretDelivery:
    """Prepares the secrets of steps.

    Args:
        folder: for the files; on a tmpfs.
    """

    def __init__(self, secrets: Secrets, driver: Driver, folder: Path) -> None:
        self._secrets = secrets
        self._driver = driver
        self._folder = folder

    async def give(self, key: StepAttempt, step: ResolvedStep) -> GivenSecrets:
        """Open the secrets of a step and write its files.

        Raises EngineRefused (`secret-missing`, `secret-unreadable`, `secrets-folder` …), and Unavailable.
        """
        if not step.secrets:
            return GivenSecrets()
        try:
            values = await self._secrets.open(step.secrets)
            env = {ref.env: values[ref.secret] for ref in step.secrets if ref.env is not None}
            files = {ref.secret: values[ref.secret] for ref in step.secrets if ref.env is None}
            if not files:
                return GivenSecrets(env)
            written = await asyncio.to_thread(self._write, key, files)
        except Unavailable:
            raise
        except MaoError as error:
            raise EngineRefused(
                f"The step {step.name!r} does not get its secrets: {error.detail}",
                code=error.code,
                next=error.next,
            ) from error
        source = await find_host_path(self._driver, written)
        return GivenSecrets(env, [Bind(source, TOOL_SECRETS, read_only=True)])

    def forget(self, run_id: str) -> None:
        """Remove the files of a run. Blocks briefly, since they are in memory."""
        shutil.rmtree(self._folder / run_id, ignore_errors=True)

    def keep(self, run_ids: Collection[str]) -> None:
        """Remove the files of all other runs. Blocks briefly."""
        try:
            found = [entry.name for entry in self._folder.iterdir()]
        except OSError:
            return
        for name in found:
            if name not in run_ids:
                log.info("secrets.removed", run=name)
                self.forget(name)

    def _write(self, key: StepAttempt, files: Mapping[str, str]) -> Path:
        """Write the files of an attempt anew, and return their folder."""
        target = self._folder / key.run / f"{key.step}.{key.attempt}"
        try:
            make_folder_in_memory(self._folder)
            if target.exists():  # of a launch that was interrupted
                shutil.rmtree(target)
            target.mkdir(parents=True)
            for name, value in files.items():
                (target / name).write_bytes(value.encode())
                (target / name).chmod(_FILE)
            target.chmod(_FOLDER)
        except OSError as error:
            raise _folder_unusable(self._folder, error.strerror or str(error)) from error
        return target


def make_folder_in_memory(folder: Path) -> None:
    """Create the folder, or check it; raises MaoError (`secrets-folder`) unless private and in memory."""
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise _folder_unusable(folder, "somebody else has created it")
    if status.st_mode & 0o077:
        raise _folder_unusable(folder, f"other users may enter it (mode {status.st_mode & 0o7777:04o})")
    kind = file_system(folder, Path("/proc/self/mountinfo").read_text().splitlines())
    if kind not in IN_MEMORY:
        raise _folder_unusable(folder, f"it is on a disk ({kind})")


def file_system(path: Path, mountinfo: Sequence[str]) -> str:
    """Return the type of the file system that holds a path, by the lines of /proc/self/mountinfo. Pure."""
    best, kind = -1, "unknown"
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        mount = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split(" ")[0]
    return kind


def _folder_unusable(folder: Path, why: str) -> MaoError:
    return MaoError(
        f"The folder {folder} cannot hold secrets: {why}.",
        code="secrets-folder",
        next="Set MAO_SECRETS_DIR to a folder of the node's user on a tmpfs, such as one in /dev/shm.",
    )
