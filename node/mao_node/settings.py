"""Settings of the native node; all other `MAO_…` variables are passed to the services."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from mao_shared.models import NodeName
from mao_shared.settings import EtcdEndpoints, default_node


class NodeSettings(BaseSettings):
    """Several nodes live on one machine when each has its own name, data directory and gateway port.

    The gateway's port is the only one of a node, but for a core node of a federation: its etcd takes
    `federation_port` and the next one, by default the gateway's + 7 and + 8.
    """

    model_config = SettingsConfigDict(
        env_prefix="MAO_", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    node: NodeName = Field(
        default_factory=default_node, validation_alias=AliasChoices("MAO_NODE", "workuser")
    )
    data_dir: Path = Field(
        default=Path("var/node"), validation_alias=AliasChoices("MAO_DATA_DIR", "importdir")
    )
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=1, le=65_527)
    etcd_endpoints: EtcdEndpoints | None = Field(  # of a running etcd; None: the node runs its own
        default=None, validation_alias=AliasChoices("MAO_ETCD_ENDPOINTS", "etcdhost")
    )
    etcd: str = "etcd"  # the program, by its path or its name on PATH
    federation_dir: Path | None = None  # None: `federation` in the data directory
    federation_port: int | None = Field(default=None, ge=1, le=65_534)  # the next one is for peers
