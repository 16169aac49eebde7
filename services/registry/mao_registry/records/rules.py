"""Rules of tools."""

from __future__ import annotations

from mao_shared.errors import InvalidInput
from mao_shared.git_urls import carries_secret
from mao_shared.models import Tool
from mao_shared.store import Check

from .references import Reference, References


class ToolRules:
    """The model has checked names, image and limits; what is left are secrets in links."""

    noun = "tool"

    def __init__(self, references: References) -> None:
        self.references = references

    def check(self, record: Tool) -> None:
        for field in ("data_repo", "code_repo", "artefact"):
            if carries_secret(getattr(record, field)):
                raise InvalidInput(
                    f"The URL in '{field}' carries a secret, which all nodes of the federation could read.",
                    code="secret-in-record",
                    next=f"Send '{field}' without what stands before '@'.",
                )

    async def referred(self, record: Tool) -> list[Check]:  # noqa: ARG002 (a tool refers to nothing)
        return []

    async def find(self, name: str) -> list[Reference]:
        return await self.references.to_tool(name)
