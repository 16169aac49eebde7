"""Signer: a node whose commits are signed."""

from __future__ import annotations

from pydantic import Field

from .common import NodeName, Record


class Signer(Record):
    """Stored under `keys.signer(node)`; `lines` of an allowed-signers file, the newest key last."""

    node: NodeName
    lines: list[str] = Field(default_factory=list)
