"""Settings of the registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from mao_shared.settings import ServiceSettings


def parse_labels(value: Any) -> Any:
    """`zone=ch,disk=ssd` as a dictionary; raises ValueError for a part without a name before `=`."""
    if not isinstance(value, str):
        return value
    labels = {}
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, equals, text = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{part!r} is not a label; write MAO_LABELS=zone=ch,disk=ssd")
        labels[name.strip()] = text.strip()
    return labels


class RegistrySettings(ServiceSettings):
    """`labels` and `member_ttl` (seconds) belong to this node's presence in the federation.

    `share_logs`: other nodes of the federation may read the logs of this node's runs.
    """

    port: int = 8081
    labels: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_labels)] = Field(default_factory=dict)
    member_ttl: int = Field(default=15, ge=2, le=3600)
    share_logs: bool = False
