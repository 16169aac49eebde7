"""Settings common to all services, from environment variables `MAO_…` or the seed's names."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .host.data_dir import AGREEMENTS
from .models.common import Bytes, NodeName, is_name
from .problems import field_errors

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
WRONG_SETTINGS = 2  # exit code of a process with invalid settings
SEED_PORT = "port"  # case-sensitive: PORT is used by many programs
SEED_NAMES = ("workuser", "importdir", "etcdhost", "hostdir", "gitusername", "gitemail")
SERVICES = ("registry", "scheduler", "runner", "datamgmt")
"""Services behind the gateway, in their usual order."""


def default_node() -> str:
    """Return the host's short name if it is a valid node name, else `node`."""
    host = socket.gethostname().split(".")[0]
    return host if is_name(host) else "node"


def _with_seed_port(endpoints: str) -> str:
    """Append the seed's `port` to its `etcdhost`, which has no port."""
    port = os.environ.get(SEED_PORT, "").strip()
    if not port or not endpoints or any(mark in endpoints for mark in ":,"):
        return endpoints
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError(f"{SEED_PORT!r}, etcd's port beside 'etcdhost', is not a TCP port")
    return f"{endpoints}:{port}"


EtcdEndpoints = Annotated[str, AfterValidator(_with_seed_port)]


def _check_collector_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("invalid address; write http:// or https:// and a host")
    return url


def _lower_case(text: str) -> str:
    """Return the text in lower case.

    With `str.lower` itself, pydantic would have `inspect` copy `sys.modules`, which takes each service 2 MB
    of the memory that it shares with its fork server.
    """
    return text.lower()


OTLP_PROTOCOL = "http/protobuf"
CollectorUrl = Annotated[str, AfterValidator(_check_collector_url)]


class ServiceSettings(BaseSettings):
    """Base of every service's settings. Ports are TCP ports, `data_dir` a path on the node."""

    model_config = SettingsConfigDict(
        env_prefix="MAO_",
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,  # compose sets unset variables to an empty string
    )

    node: NodeName = Field(
        default_factory=default_node, validation_alias=AliasChoices("MAO_NODE", "workuser")
    )
    data_dir: Path = Field(
        default=Path("var/node"), validation_alias=AliasChoices("MAO_DATA_DIR", "importdir")
    )
    host: str = "127.0.0.1"  # address this service binds
    port: int = 8080  # port this service binds
    socket: Path | None = None  # unix socket to serve on, instead of address and port
    etcd_endpoints: EtcdEndpoints = Field(
        default="127.0.0.1:2379",  # host:port or unix:///path, separated by commas
        validation_alias=AliasChoices("MAO_ETCD_ENDPOINTS", "etcdhost"),
    )
    etcd_quota: Bytes = Field(
        default=2 << 30,  # maximum bytes of etcd's database; etcd reads the second name itself
        validation_alias=AliasChoices("MAO_ETCD_QUOTA", "ETCD_QUOTA_BACKEND_BYTES"),
    )
    federation_endpoints: str | None = None  # None: the node's own store
    agreements_dir: Path | None = None  # agreements; None: in the data directory
    federation_dir: Path | None = None  # certificates of the federation; None: in the data directory
    local_users: str = ""  # user[,user…] of this machine, by name or uid, allowed by the gateway
    owner_of: Path | None = None  # under compose: a file owned by the user who runs this node
    registry_url: str = "http://127.0.0.1:8081"  # or unix:///path/registry.sock, as the others
    scheduler_url: str = "http://127.0.0.1:8082"
    runner_url: str = "http://127.0.0.1:8083"
    datamgmt_url: str = "http://127.0.0.1:8084"
    log_level: Annotated[LogLevel, BeforeValidator(_lower_case)] = "info"
    log_format: LogFormat = "text"  # for people, or a JSON object a line
    # Traces, by OpenTelemetry's own variables: the collector's base URL, or its URL for traces; None: off.
    otlp_endpoint: CollectorUrl | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_traces_endpoint: CollectorUrl | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    traces_exporter: str = Field(default="otlp", validation_alias="OTEL_TRACES_EXPORTER")  # "none": off
    telemetry_disabled: bool = Field(default=False, validation_alias="OTEL_SDK_DISABLED")
    otlp_protocol: str = Field(
        default=OTLP_PROTOCOL,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    )

    @field_validator("otlp_protocol")
    @classmethod
    def _check_protocol(cls, protocol: str, info: ValidationInfo) -> str:
        is_used = info.data.get("otlp_endpoint") or info.data.get("otlp_traces_endpoint")
        if is_used and protocol != OTLP_PROTOCOL:
            raise ValueError(f"only {OTLP_PROTOCOL} is supported, usually at port 4318")
        return protocol

    def traces_endpoint(self) -> str | None:
        """Return the URL that spans are sent to; None while traces are off."""
        if self.telemetry_disabled or self.traces_exporter == "none":
            return None
        if self.otlp_traces_endpoint is not None or self.otlp_endpoint is None:
            return self.otlp_traces_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/traces"

    def federation_files(self) -> Path:
        """Return the folder of the federation's certificates."""
        return self.federation_dir or self.data_dir / "federation"

    def agreement_files(self) -> Path:
        """Return the folder of the operator's agreements."""
        return self.agreements_dir or self.data_dir / AGREEMENTS

    def service_url(self, service: str) -> str:
        """Return the base URL of one of SERVICES."""
        return str(getattr(self, f"{service}_url"))


def wrong_settings(error: ValidationError) -> str:
    """Return an error message that names each invalid variable, without values, and the next step."""
    lines = [
        f"{_variable(fault['field'])} is invalid: {fault['message']}."
        for fault in field_errors(error.errors())
    ]
    return "\n".join([*lines, "  next: Correct it in the environment (or in .env) and start again.\n"])


def _variable(field: str) -> str:
    known = field.startswith(("MAO_", "OTEL_")) or field in SEED_NAMES
    return field if known else f"MAO_{field.upper()}"
