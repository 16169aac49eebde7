"""Git LFS for those who clone a dataset from the node: which contents are here, and where they are fetched.

The batch API of git-lfs, for downloads: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from mao_shared.errors import NotFound

from .git_http import ReadOnly

MEDIA_TYPE = "application/vnd.git-lfs+json"
Oid = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content", examples=["ab" * 32])
]


class Asked(BaseModel):
    """A content that a client wants; `size` in bytes."""

    oid: Oid
    size: int = Field(ge=0, examples=[1048576])


class Batch(BaseModel):
    """Body of `POST /git/NAME.git/info/lfs/objects/batch`; what else git-lfs sends does not matter here."""

    operation: str = Field(max_length=100, examples=["download"])
    objects: list[Asked] = Field(max_length=10_000, examples=[[{"oid": "ab" * 32, "size": 1048576}]])


def answer(batch: Batch, repository: Path, base: str) -> dict[str, Any]:
    """What git-lfs is told. `base`: the URL of the dataset's repository as the client has it.

    Raises ReadOnly for uploads. Blocks for as long as looking at the files takes.
    """
    if batch.operation != "download":
        raise ReadOnly("Nothing is uploaded to a dataset through the node.", next="Let a tool write it.")
    return {"transfer": "basic", "objects": [_told(each, repository, base) for each in batch.objects]}


def _told(asked: Asked, repository: Path, base: str) -> dict[str, Any]:
    facts = {"oid": asked.oid, "size": asked.size}
    try:
        content(repository, asked.oid)
    except NotFound as error:
        return {**facts, "error": {"code": 404, "message": error.detail}}
    return {**facts, "actions": {"download": {"href": f"{base}/lfs/{asked.oid}"}}}


def content(repository: Path, oid: str) -> Path:
    """The file of a content in a repository on this machine. Raises NotFound; a link out of it is none."""
    path = repository / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    if not path.is_file() or not path.resolve().is_relative_to(repository.resolve()):
        raise NotFound(
            f"The content {oid[:12]}… of a large file is not at the remote {repository}.",
            code="lfs-content-missing",
            next="Push it from where it is: git lfs push --all origin; then try again.",
        )
    return path
