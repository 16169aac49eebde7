"""Container engines behind one protocol (protocol.py): one module per engine."""

from .protocol import (
    Bind,
    Capacity,
    Connected,
    Container,
    ContainerSpec,
    ContainerState,
    Disconnected,
    Driver,
    EngineEvent,
    EngineRefused,
    Happened,
    HostCommand,
    ImageConfig,
    LogStream,
)

__all__ = [
    "Bind",
    "Capacity",
    "Connected",
    "Container",
    "ContainerSpec",
    "ContainerState",
    "Disconnected",
    "Driver",
    "EngineEvent",
    "EngineRefused",
    "Happened",
    "HostCommand",
    "ImageConfig",
    "LogStream",
]
