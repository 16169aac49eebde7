"""Dataset: a git repository with a branch a node and `ground-truth`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from .common import Bytes, Name, Named, NodeNames
from .round import VoteDefinition
from .tool import flatten_body


class Dataset(Named):
    """A registered dataset, as `POST /registry/datasets` takes it and the registry keeps it.

    `master` is the remote: an absolute path, `file://`, `https://`, `ssh://` or `user@host:path`.
    """

    master: str = Field(min_length=1, max_length=2000, examples=["git@git.example.org:mao/data.git"])
    nodes: NodeNames = Field(default_factory=list)
    description: str = Field(default="", max_length=10_000)
    lfs_above: Bytes | None = None  # files larger than this go to Git LFS; None: the dataset has no LFS
    vote: VoteDefinition | None = None  # None: the defaults; see docs/ground-truth.md
    external: list[Name] = Field(default_factory=list, max_length=1000)  # keys that `POST /write` puts here

    @model_validator(mode="before")
    @classmethod
    def _flatten_body(cls, value: Any) -> Any:
        return flatten_body(value)
