"""Settings of the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from mao_shared.settings import ServiceSettings

from .federation.context import EtcdAddress


def parse_labels(value: Any) -> Any:
    """Parse `zone=ch,disk=ssd`; raises ValueError for a part without a name before `=`."""
    if not isinstance(value, str):
        return value
    labels = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, equals, text = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{part!r} is not a label; write MAO_LABELS=zone=ch,disk=ssd")
        labels[name.strip()] = text.strip()
    return labels


def check_host(host: str | None) -> str | None:
    """Return the host name or address; raises ValueError for anything else, and for one with a port."""
    if host is not None and not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host):
        raise ValueError(f"{host!r} is neither a host name nor an address; the port is set apart")
    if host is not None and re.fullmatch(r"[^:]+:\d+", host):
        raise ValueError(f"{host!r} has a port, which is set by MAO_FEDERATION_PORT")
    return host


class RegistrySettings(ServiceSettings):
    """`labels` and `member_ttl` (seconds) belong to this node's presence in the federation.

    `federation_address`: host name or address at which others reach this node's etcd, on `federation_port`
    for clients and `federation_peer_port` (the next one) for its peers; without it this node never becomes a
    core node. `federation_bind`: the address that etcd listens on. `join_token_file`: an invitation to join
    with at the start, ignored once joined.
    `share_logs`: other nodes of the federation may read the logs of this node's runs.
    """

    port: int = 8081
    labels: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_labels)] = Field(default_factory=dict)
    member_ttl: int = Field(default=15, ge=2, le=3600)
    share_logs: bool = False
    federation_address: Annotated[str | None, AfterValidator(check_host)] = None
    federation_port: int = Field(default=2391, ge=1, le=65_534)
    federation_peer_port: int | None = Field(default=None, ge=1, le=65_535)
    federation_bind: Annotated[str | None, AfterValidator(check_host)] = None
    join_token_file: Path | None = None

    def etcd_address(self) -> EtcdAddress | None:
        """Return the address of this node's member of the federation's etcd; None if it cannot have one."""
        if self.federation_address is None:
            return None
        peer_port = self.federation_peer_port or self.federation_port + 1
        return EtcdAddress(self.federation_address, self.federation_port, peer_port, self.federation_bind)
