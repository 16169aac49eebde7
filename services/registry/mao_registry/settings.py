"""Settings of the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from mao_shared.models.common import Seconds
from mao_shared.settings import ServiceSettings

from .catalogue.sources import parse_sources
from .federation.context import EtcdAddress


def parse_labels(value: Any) -> Any:
    """Parse labels such as `zone=ch,disk=ssd`. Raises ValueError for a part that is not `name=value`."""
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
    """Return `host` if it is a host name or address without a port. Raises ValueError otherwise."""
    if host is not None and not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host):
        raise ValueError(f"{host!r} is neither a host name nor an address")
    if host is not None and re.fullmatch(r"[^:]+:\d+", host):
        raise ValueError(f"{host!r} includes a port; set it with MAO_FEDERATION_PORT")
    return host


def _parse_catalogues(value: Any) -> Any:
    return parse_sources(value) if isinstance(value, str) else value


class RegistrySettings(ServiceSettings):
    """Settings of the registry.

    Args:
        labels: labels of this node, published with its presence.
        member_ttl: seconds after which a node whose registry has stopped counts as absent.
        silent_after: seconds without a sign of another node after which it is reported as silent.
        share_logs: let other nodes of the federation read the logs of this node's runs.
        catalogues: catalogues to install from, `[NAME=]ADDRESS …`: files, folders or https URLs.
        federation_address: host name or address at which others reach this node's etcd; without it this node
            never becomes a core node.
        federation_port: port of that etcd for clients.
        federation_peer_port: port of that etcd for its peers; defaults to the next one.
        federation_bind: address that etcd listens on.
        join_token_file: file with an invitation to join with at startup; ignored once joined.
    """

    port: int = 8081
    labels: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_labels)] = Field(default_factory=dict)
    member_ttl: int = Field(default=15, ge=2, le=3600)
    silent_after: Seconds = Field(default=3600, gt=0)
    share_logs: bool = False
    catalogues: Annotated[dict[str, str], NoDecode, BeforeValidator(_parse_catalogues)] = Field(
        default_factory=dict
    )
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
