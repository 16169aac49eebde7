"""Engines behind one protocol: `docker.py` for real, `fake.py` for tests."""

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
