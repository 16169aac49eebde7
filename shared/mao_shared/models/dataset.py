"""Datasets (git repositories with one branch per node and `ground-truth`), their clones and contents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator

from .common import Bytes, Name, Named, NodeNames, OrNewer, Record, Timestamp
from .round import VoteDefinition
from .tool import flatten_body


class Dataset(Named):
    """A registered dataset, as accepted by `POST /registry/datasets` and stored by the registry.

    `master` is the remote: an absolute path, `file://`, `https://`, `ssh://` or `user@host:path`.
    """

    master: str = Field(min_length=1, max_length=2000, examples=["git@git.example.org:mao/performance.git"])
    nodes: NodeNames = Field(default_factory=list)
    description: str = Field(default="", max_length=10_000)
    lfs_above: Bytes | None = None  # larger files are stored in Git LFS; None: the dataset does not use LFS
    vote: VoteDefinition | None = None  # None: default rules; see docs/ground-truth.md
    external: list[Name] = Field(default_factory=list, max_length=1000)  # keys of `POST /write` stored here

    _flatten = model_validator(mode="before")(flatten_body)


class BareRequest(Record):
    """Body of `POST /bare-repo/init`."""

    name: Name = Field(examples=["performance"])


class BareRepository(Record):
    """A new bare repository. `master`: the remote to register; `path`: the same, as the original names it."""

    name: Name
    master: str
    path: str = ""


# The clone on a node


class BranchStatus(Record):
    """A branch of a clone. `unpushed`: commits not known to be at the remote; `here`: this node writes it."""

    name: str
    commit: str
    time: Timestamp
    subject: str
    here: bool
    unpushed: int = 0


OutboxState = Annotated[Literal["in-sync", "waiting", "refused", "auth", "gone", "diverged"], OrNewer]


class Outbox(Record):
    """Commits of this node's branch that the remote lacks: their number, and the oldest one's time."""

    state: OutboxState = Field(examples=["waiting"])
    waiting: int = 0
    since: Timestamp | None = None
    code: str | None = None
    detail: str | None = None
    next: str | None = None
    tries: int = 0
    next_try_at: Timestamp | None = None


class BrokenClone(Record):
    """A corrupt clone that was set aside automatically. `path`: where it is now; `fault`: the corruption.

    `state`: whether the dataset was cloned again. `kept`: number of unpushed commits carried over to the new
    clone; `lost`: commits that could not be read, each with the reason and its run.
    """

    dataset: str
    path: str
    fault: str
    at: Timestamp
    url: str | None = None
    state: str = Field(default="waiting", examples=["waiting", "made-anew"])
    kept: int = 0
    lost: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if name not in ("detail", "next")}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def detail(self) -> str:
        """Description of what happened, for people."""
        begin = f"The clone of dataset {self.dataset} was broken: {self.fault}. It is kept at {self.path}"
        if self.state == "waiting":
            return f"{begin}; its remote {self.url or '(not known)'} has to answer before it is cloned again."
        put = "" if not self.kept else f", with {self.kept} commits on top that only this node had"
        if not self.lost:
            return f"{begin}; it was cloned again{put}. Nothing is lost."
        lost = "; ".join(f"{commit[:10]}: {why}" for commit, why in self.lost.items())
        return f"{begin}; it was cloned again{put}. Lost, since it cannot be read and was not pushed: {lost}."

    @computed_field  # type: ignore[prop-decorator]
    @property
    def next(self) -> str:
        """The next command or step for the operator."""
        if self.state == "waiting":
            return f"Check the remote: git ls-remote {self.url or 'URL'}; cloning is retried automatically."
        return (
            f"Look at the disk (dmesg, smartctl), then: maoctl dataset acknowledge {self.dataset}; "
            f"the folder {self.path} may be kept or removed."
        )


class DatasetStatus(Record):
    """A dataset on this node. `size`: disk usage of its clone in bytes; `failure`: why a push is pending.

    `unpushed`: number of commits of all branches not known to be at the remote; `outbox`: those of this
    node's branch. `broken_clones`: clones set aside and not acknowledged yet. `quarantined`: number of this
    node's quarantined snapshots that wait for a decision.
    """

    name: str
    master: str
    branches: list[BranchStatus]
    unpushed: int
    failure: str | None = None
    outbox: Outbox
    size: int
    broken_clones: list[BrokenClone] = Field(default_factory=list)
    quarantined: int = 0


Strategy = Literal["merge", "replay", "take-theirs"]


class ResolveRequest(Record):
    """Body of `POST /datasets/{name}/resolve`."""

    how: Strategy = Field(
        examples=["merge"],
        description="merge: a commit with both as parents and this node's content; replay: this node's "
        "unpushed commits on top of the remote's; take-theirs: the remote's branch, this node's tip is kept",
    )


class Resolution(Record):
    """Result of resolving a diverged branch. `commit`: its new tip; `rescued`: refs to its former tips."""

    name: str
    branch: str
    how: Strategy
    commit: str
    rescued: list[str] = Field(description="References in this node's clone", examples=[[]])
    pushed: bool
    failure: str | None = None


class SetAside(Record):
    """A clone that was set aside. `unpushed`: commits of this node's branch that its remote lacked."""

    name: str
    path: str
    remote: str
    unpushed: int


# Contents


class CommitInfo(Record):
    """A commit. `run` and `step`: whose output it holds, if any.

    `signing_key`: fingerprint of the SSH key that signed it, None without a signature. Whether the signature
    is right, and the key one of the federation's, `git verify-commit` tells.
    """

    commit: str
    parents: list[str]
    author: str
    email: str
    time: Timestamp
    subject: str
    message: str
    run: str | None = None
    step: str | None = None
    signing_key: str | None = None


class FileInfo(Record):
    """A folder entry. `kind`: file, folder, link or submodule; `size`: in bytes, None for a folder.

    With `details`, `entries`: how many a folder has; `changed_at`, `changed_in`: time and id of the commit
    that last changed it, None if that is too long ago to be searched.
    """

    name: str
    path: str
    kind: str = Field(examples=["file"])
    size: int | None
    id: str
    executable: bool
    entries: int | None = None
    changed_at: Timestamp | None = None
    changed_in: str | None = None


PreviewKind = Annotated[Literal["table", "image", "text", "none"], OrNewer]


class FilePreview(Record):
    """The beginning of a file. `size` in bytes; `media_type` of an image, which `…/image` returns.

    Of a table, `rows` are the records after the first `offset`, cells as they are spelt, None for a field
    that a record lacks; `total`: how many records there are, None if not all were read; `key`: the columns
    that tell the records apart, as inferred. `more`: there is more than is shown; `note`: why.
    """

    commit: str
    path: str
    size: int
    kind: PreviewKind = Field(examples=["table"])
    media_type: str | None = None
    columns: list[str] = Field(default_factory=list)
    rows: list[list[str | None]] = Field(default_factory=list)
    offset: int = 0
    total: int | None = None
    key: list[str] = Field(default_factory=list)
    text: str | None = None
    more: bool = False
    note: str | None = None


# The history of a value

ValueState = Annotated[Literal["value", "no-field", "no-record", "no-file", "unreadable"], OrNewer]


class ValueVersion(Record):
    """A commit that changed a file, and what a field of a record was there.

    `run` and `step`, or `round`: what made the commit; `tick`: its scheduled time. `key`: the columns that
    identify the record, as spelt there. `value`: as spelt in the file, in JSON files as JSON; the first 2000
    characters. `changed`: whether the value differs from the one before; None if that is not known. `reason`:
    why there is no value. `unknown`: why no older commits are listed, if there are any.
    """

    time: Timestamp
    commit: str
    run: str | None = None
    step: str | None = None
    round: str | None = None
    tick: Timestamp | None = None
    key: dict[str, str] = Field(default_factory=dict)
    state: ValueState = Field(examples=["value"])
    value: str | None = None
    changed: bool | None = None
    reason: str | None = None
    unknown: str | None = None


# Differences

Change = Literal["added", "removed", "changed"]


class FileDifference(Record):
    """A file that differs, with the git object ids of its content before and after.

    `size`: of the content after, in bytes; None for one that was removed or is no file.
    """

    path: str
    change: Change
    before: str | None = None
    after: str | None = None
    size: int | None = None


class FieldDifference(Record):
    """A field that differs, with its values as written in the files; None: no such record or field."""

    before: str | None = None
    after: str | None = None


class RowDifference(Record):
    """A record that differs: its key and the fields that differ."""

    change: Change
    key: dict[str, str]
    fields: dict[str, FieldDifference]


class RowsDifference(Record):
    """Differing records of a file: counts of all, `rows` with the first. Empty `key`: matched by position."""

    key: list[str]
    key_source: Annotated[Literal["declared", "inferred", "position"], OrNewer]
    columns_added: list[str]
    columns_removed: list[str]
    added: int
    removed: int
    changed: int
    same: int
    rows: list[RowDifference]
    truncated: bool


class LinesDifference(Record):
    """Lines of a unified diff."""

    lines: list[str]
    truncated: bool


class DatasetDiff(Record):
    """Differences from commit `before` to `after`; for a file, its `rows`, `lines` or a `note` why not."""

    before: str
    after: str
    files: list[FileDifference] = Field(default_factory=list)
    cursor: str | None = None
    rows: RowsDifference | None = None
    lines: LinesDifference | None = None
    note: str | None = None
