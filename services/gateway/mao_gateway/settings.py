"""Settings of the gateway, beside those of every service."""

from __future__ import annotations

from pathlib import Path

from mao_shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """These, `local_users` and the address decide who is let in (see `auth`)."""

    gateway_bind: str | None = None  # where it is really published, when `host` is a container's 0.0.0.0
    allowed_hosts: str = ""  # host[,host…] that people may call this node, beside the loopback names
    tokens_file: Path | None = None  # lines `name:sha256-of-token`; present: everybody needs a token
    gateway_token_file: Path | None = None  # holds a token for those on loopback who need one; made if absent
    gateway_token_shown: str | None = (
        None  # command that prints it, where the file's path means nothing outside
    )
    supervisor: int | None = None  # pid of what runs a native node's services
    open_to_local_users: bool = False  # every user and program of this machine steers the node

    @property
    def address(self) -> str:
        """The address at which this gateway can be reached."""
        return self.gateway_bind or self.host

    @property
    def hosts(self) -> frozenset[str]:
        """`allowed_hosts` as lower-case names."""
        return frozenset(part.strip().lower() for part in self.allowed_hosts.split(",") if part.strip())
