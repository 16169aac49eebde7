"""Settings of the gateway, in addition to those of every service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mao_shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Settings of the gateway; with `local_users`, they decide which callers are admitted (see `auth`)."""

    gateway_bind: str | None = None  # the published address, if `host` is a container's 0.0.0.0
    allowed_hosts: str = ""  # host[,host…] by which this node may be called, beside loopback names
    tokens_file: Path | None = None  # lines `name:sha256-of-token`; if set, everybody needs a token
    gateway_token_file: Path | None = None  # token for callers on loopback who need one; created if absent
    gateway_token_shown: str | None = None  # command that prints it, if the path means nothing outside
    supervisor: int | None = None  # pid of the supervisor of a native node
    keep_audit: int = Field(default=10_000, ge=1)  # maximum number of entries of the audit log
    keep_audit_days: float = Field(default=365, gt=0)  # their maximum age
    public_status: str = ""  # dataset[,dataset…] whose status anybody may see, without a token
    open_to_local_users: bool = False  # every user and program of this machine controls the node

    @property
    def address(self) -> str:
        """The address at which this gateway can be reached."""
        return self.gateway_bind or self.host

    @property
    def public_datasets(self) -> frozenset[str]:
        """`public_status` as names."""
        return frozenset(part.strip() for part in self.public_status.split(",") if part.strip())

    @property
    def hosts(self) -> frozenset[str]:
        """`allowed_hosts` as lower-case names."""
        return frozenset(part.strip().lower() for part in self.allowed_hosts.split(",") if part.strip())
