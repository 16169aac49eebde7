"""Settings of the runner; see `mao_shared.settings` for those that all services share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field

from mao_shared.host.sockets import allowed_users
from mao_shared.models.common import Bytes, Seconds
from mao_shared.models.tool import ToolNetworkKind
from mao_shared.settings import ServiceSettings

from .drivers import ENGINES

MIN_SLOTS = 4
ToolNetworkName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,12}[a-z0-9]$")]  # bridges: 15 characters


def _known_engine(name: str) -> str:
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    return name


def default_slots() -> int:
    """Return one slot per core, but at least MIN_SLOTS, since most tools wait for a network."""
    return max(MIN_SLOTS, os.cpu_count() or 1)


class RunnerSettings(ServiceSettings):
    """Settings of the runner. Sizes are in bytes (or `64m`), times in seconds (or `30d`)."""

    port: int = 8083
    slots: int = Field(default_factory=default_slots, ge=1)  # steps that run at the same time
    hostdir: str | None = Field(default=None, validation_alias=AliasChoices("MAO_HOSTDIR", "hostdir"))
    engine: Annotated[str, AfterValidator(_known_engine)] = "docker"
    engine_timeout: int = Field(default=60, ge=1)  # seconds that a call to the engine may take, except pulls
    log_max: Bytes = 64 * 1024**2  # of one step's log; the rest is cut
    log_retention: Seconds = 400 * 86400  # age at which the logs of an ended run are removed
    log_keep: int = Field(default=50_000, ge=1)  # runs whose logs are kept at most
    log_space: Bytes = 20 * 1024**3  # bytes of logs that are kept at most
    leftover_grace: Seconds = 10  # before a container that no run claims is removed
    tool_uid: int = Field(default=10001, ge=1)  # of tools on a node that itself runs as root
    tool_network: ToolNetworkKind = "isolated"  # or the engine's default network as it is: bridge
    tool_network_name: ToolNetworkName = "mao-tools"  # of the isolated one, with a 0 its bridge on the host
    tokens_file: Path | None = None  # the gateway's; if set, it requires tokens from everybody
    secrets_dir: Path | None = None  # of files with secrets of running tools; default: a folder in /dev/shm
    checks: int = Field(default=2, ge=1)  # compliance checks that run at the same time

    def operators(self) -> frozenset[int]:
        """Return the uids that the gateway trusts although it cannot tell containers from other processes.

        Raises InvalidInput (`local-users-invalid`).
        """
        if self.owner_of is None or self.tokens_file is not None:
            return frozenset()
        return allowed_users(self.local_users, self.owner_of)
