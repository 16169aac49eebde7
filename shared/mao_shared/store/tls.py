"""How a client of etcd proves who it is, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the authority's certificate, the client's certificate and its private key."""

    ca: Path
    certificate: Path
    key: Path
