"""Settings of the data manager."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from mao_shared.models.common import Bytes, Seconds
from mao_shared.settings import SERVICES, ServiceSettings

TOOL_UID = 10001

_NoneIfEmpty = BeforeValidator(lambda value: value or None)


def _signer(path: Path) -> Callable[[bytes], str]:
    from mao_git.signing import load_signer  # only if a key is set: the library takes memory and time

    return load_signer(path)


class DataSettings(ServiceSettings):
    """The settings of the data manager. `git_user` and `git_email` name the author of commits.

    The default author is the node's name. `local_remotes` lists folders on this machine, separated by ':',
    whose repositories may be remotes, in addition to the node's own. `ssh_dir` contains the private key
    (id_ed25519, id_ecdsa or id_rsa) and known_hosts. `tool_uid` owns the workspaces if this process is root;
    otherwise they belong to the process's user. Times are in seconds.
    """

    port: int = 8084
    git_user: Annotated[str | None, _NoneIfEmpty] = Field(
        default=None, validation_alias=AliasChoices("MAO_GIT_USER", "gitusername")
    )
    git_email: Annotated[str | None, _NoneIfEmpty] = Field(
        default=None, validation_alias=AliasChoices("MAO_GIT_EMAIL", "gitemail")
    )
    ssh_dir: Annotated[Path | None, _NoneIfEmpty] = None
    local_remotes: str = ""
    signing_key: Annotated[Path | None, _NoneIfEmpty] = None  # SSH private key with which commits are signed
    tool_uid: int = Field(default=TOOL_UID, ge=1)
    max_file_size: Bytes = 100 << 20  # of one file that a tool writes
    clone_depth: int = Field(default=0, ge=0)  # commits that a new clone fetches over the network; 0: all
    min_free: Bytes = 256 << 20  # of the data directory's disk; with less, nothing is started or committed
    max_files: int = Field(default=500_000, ge=1)  # in one dataset
    remote_connect_timeout: float = Field(default=10, gt=0, le=600)
    remote_silence_timeout: float = Field(default=30, gt=0, le=3600)
    remote_threads: int = Field(default=16, ge=1, le=256)  # datasets that are processed at the same time
    push_retry: float = Field(default=5, gt=0)  # before the first retry of a push; doubled up to 5 minutes
    outbox_alarm: Seconds = 86400  # age from which an unpushed commit is reported
    max_external_value: Bytes = 256 << 10  # of one value that `POST /write` accepts
    external_period: float = Field(default=10, gt=0, le=3600)  # between two commits of such values
    external_batch: int = Field(default=500, ge=1, le=10_000)  # values in one commit
    external_waiting: int = Field(default=100_000, ge=1)  # values that may wait for one dataset
    person_name: Annotated[str | None, _NoneIfEmpty] = None  # the person responsible for the data, in crates
    orcid: Annotated[str | None, _NoneIfEmpty] = None  # of that person, with or without https://orcid.org/
    organisation: Annotated[str | None, _NoneIfEmpty] = None
    ror: Annotated[str | None, _NoneIfEmpty] = None  # of the organisation, with or without https://ror.org/
    licence: Annotated[str | None, _NoneIfEmpty] = None  # of the data: a URL or a text
    keep_workspaces_days: float = Field(default=7, ge=0)  # of failed steps
    keep_workspaces: int = Field(default=50, ge=0)  # maximum number of them
    round_grace: float = Field(
        default=30, ge=0, le=3600
    )  # after an outage of the federation; no deadline counts until then
    keep_rounds_days: float = Field(default=90, ge=1)  # in the federation's store; the datasets keep them all
    keep_rounds: int = Field(default=1000, ge=1)  # maximum number per dataset
    keep_alarms_days: float = Field(default=365, ge=1)
    keep_alarms: int = Field(default=5000, ge=1)  # maximum number of alarms
    backup_dir: Annotated[Path | None, _NoneIfEmpty] = None  # folder for periodic backups; None: no backups
    backup_every: Seconds = Field(default=86400, ge=60)  # between two backups
    backup_keep: int = Field(default=7, ge=1)  # maximum number of this node's backups in that folder
    webhook_hosts: str = ""  # host[:port][,…] of webhook receivers that may be on this machine

    @field_validator("local_remotes")
    @classmethod
    def _absolute_folders(cls, value: str) -> str:
        if relative := [
            folder for folder in value.split(os.pathsep) if folder and not folder.startswith("/")
        ]:
            raise ValueError(f"{relative[0]!r} is not an absolute path; give folders as /srv/git:/data/git")
        return value

    def local_roots(self) -> list[Path]:
        """Return the folders of `local_remotes`."""
        return [Path(folder) for folder in self.local_remotes.split(os.pathsep) if folder]

    @field_validator("signing_key")
    @classmethod
    def _usable_key(cls, path: Path | None) -> Path | None:
        if path is not None:
            _signer(path)
        return path

    def signer(self) -> Callable[[bytes], str] | None:
        """Return the function that signs commits, or None if no key is set."""
        return None if self.signing_key is None else _signer(self.signing_key)

    def public_signing_key(self) -> str | None:
        """Return the public key that verifies the signatures, or None if no key is set."""
        if self.signing_key is None:
            return None
        from mao_git.signing import public_key  # as above

        return public_key(self.signing_key)

    def about(self) -> About:
        """Return the person and organisation responsible for the data, for crates."""
        return About(
            person=self.person_name or self.git_user or self.node,
            orcid=_web_id("https://orcid.org/", self.orcid),
            organisation=self.organisation,
            ror=_web_id("https://ror.org/", self.ror),
            licence=self.licence,
        )

    def own_hosts(self) -> set[str]:
        """Return the hosts of the node's own services and etcd, if their addresses name hosts."""
        urls = [self.service_url(service) for service in SERVICES]
        urls += [f"//{endpoint}" for endpoint in self.etcd_endpoints.split(",") if "//" not in endpoint]
        return {host for url in urls if (host := urlsplit(url).hostname)}

    def owner(self) -> int | None:
        """Return the user id that owns workspaces, or None for this process's user."""
        return self.tool_uid if os.geteuid() == 0 else None


def _web_id(site: str, value: str | None) -> str | None:
    """Return an identifier as a URL."""
    return None if value is None else site + value.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class About:
    """The person and organisation responsible for the data. `licence` is a URL or a text."""

    person: str
    orcid: str | None = None
    organisation: str | None = None
    ror: str | None = None
    licence: str | None = None
