"""Settings of a native node; all `MAO_…` variables are also passed to the services."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from mao_shared.models import NodeName
from mao_shared.settings import EtcdEndpoints, LogFormat, default_node


class NodeSettings(BaseSettings):
    """Settings of a native node. Nodes on one machine need different names, data directories and ports.

    A node listens on the gateway's port only; the etcd of a core node also on `federation_port` and the next
    one, by default the gateway's + 7 and + 8.
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
    log_format: LogFormat = "text"  # of the common log, as of the services'
    federation_dir: Path | None = None  # None: `federation` in the data directory
    federation_port: int | None = Field(default=None, ge=1, le=65_534)  # the next one is for peers
