"""Dataset: a git repository with a branch a node and `ground-truth`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from .common import Bytes, Name, Named, NodeNames, Record, Timestamp
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


class BareRepository(Record):
    """`master` is what to register as the dataset's remote; `path` is the original's word for it."""

    name: Name
    master: str
    path: str = ""


class BranchStatus(BaseModel):
    """`unpushed`: commits that the remote was not seen to have; `here`: whether this node writes it."""

    name: str
    commit: str
    time: Timestamp
    subject: str
    here: bool
    unpushed: int = 0


class CommitInfo(BaseModel):
    """A commit; `run` and `step` for those that hold a step's output."""

    commit: str
    parents: list[str]
    author: str
    email: str
    time: Timestamp
    subject: str
    message: str
    run: str | None = None
    step: str | None = None


class FileInfo(BaseModel):
    """An entry of a folder. `kind`: file, folder, link or submodule; `size` in bytes, none for a folder."""

    name: str
    path: str
    kind: str = Field(examples=["file"])
    size: int | None
    id: str
    executable: bool


class SetAside(BaseModel):
    """Where a clone is now. `unpushed`: commits of this node's branch that its remote did not have."""

    name: str
    path: str
    remote: str
    unpushed: int


Strategy = Literal["merge", "replay", "take-theirs"]


class Resolution(BaseModel):
    """`commit`: the branch's tip now; `rescued`: references here that keep the tips it left."""

    name: str
    branch: str
    how: Strategy
    commit: str
    rescued: list[str] = Field(description="References in this node's clone", examples=[[]])
    pushed: bool
    failure: str | None = None


class FileDifference(BaseModel):
    """A file that differs; the ids are git's, of the content before and after."""

    path: str
    change: Literal["added", "removed", "changed"]
    before: str | None = None
    after: str | None = None


class FieldDifference(BaseModel):
    """Values as they are in the files; none where there is no such record or field."""

    before: str | None = None
    after: str | None = None


class RowDifference(BaseModel):
    change: Literal["added", "removed", "changed"]
    key: dict[str, str]
    fields: dict[str, FieldDifference]


class RowsDifference(BaseModel):
    """Counts are of all records, `rows` holds the first that differ. An empty `key`: matched by position."""

    key: list[str]
    key_source: Literal["declared", "inferred", "position"]
    columns_added: list[str]
    columns_removed: list[str]
    added: int
    removed: int
    changed: int
    same: int
    rows: list[RowDifference]
    truncated: bool


class LinesDifference(BaseModel):
    """Lines of a unified diff."""

    lines: list[str]
    truncated: bool


class DatasetDiff(BaseModel):
    """From commit `before` to `after`. Where `path` is a file: `rows`, `lines`, or a `note` why not."""

    before: str
    after: str
    files: list[FileDifference] = Field(default_factory=list)
    cursor: str | None = None
    rows: RowsDifference | None = None
    lines: LinesDifference | None = None
    note: str | None = None
