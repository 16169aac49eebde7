"""Pipelines: ordered steps, each a tool and its datasets; titles and the names derived from them.

A title is what the original let people call a pipeline or a step: any line of text. Branches, labels and
paths are made of the name, which is a function of the title alone: every node that knows the title knows the
name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from .alarm import MAX_METRICS, ControlMetric
from .common import (
    GROUND_TRUTH,
    MAX_NAME,
    STORED,
    Env,
    Name,
    Named,
    OptionalCommand,
    Record,
    Seconds,
    is_name,
)
from .tool import DockerSocket, Limits
from .tool import Pull as Pull

MAX_TITLE_LENGTH = 500
_HASH = 8  # hexadecimal digits of the title's SHA-256 where letters alone would not distinguish titles
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)


def normalize_title(text: str) -> str:
    """Return the title in the form in which it is stored and compared: NFC, without surrounding blanks.

    Raises ValueError for what is no single line of text.
    """
    title = unicodedata.normalize("NFC", text).strip()
    if not title:
        raise ValueError("the title is empty")
    if len(title) > MAX_TITLE_LENGTH:
        raise ValueError(f"the title has {len(title)} characters; at most {MAX_TITLE_LENGTH} are accepted")
    if invalid := next((letter for letter in title if unicodedata.category(letter) in _NOT_ON_A_LINE), None):
        raise ValueError(f"{invalid!a} is in the title; a title is one line of text")
    return title


_NOT_ON_A_LINE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph ends


def name_from_title(title: str) -> str:
    """Return the name for a title; a title that is a valid name is used as it is.

    Accents go, all else that a name cannot hold becomes '-'. A title that is too long, or of which nothing is
    left, gets digits of its hash, so that others of the kind have another name.
    """
    if is_name(title):
        return title
    plain = unicodedata.normalize("NFKD", title.translate(_LETTERS))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    name = re.sub(r"[^A-Za-z0-9._]+", "-", letters)
    name = re.sub(r"\.{2,}", ".", name).strip("._-")
    name = re.sub(r"\.lock$", "-lock", name)
    digits = hashlib.sha256(title.encode()).hexdigest()[:_HASH]
    if not name:
        return f"title-{digits}"
    if len(name) > MAX_NAME:
        return f"{name[: MAX_NAME - _HASH - 1].rstrip('._-')}-{digits}"
    return name


def fill_title(value: dict[str, Any]) -> dict[str, Any]:
    """Fields in which a `name` that is none has become the `title`, and a title alone its name: pure."""
    name, title = value.get("name"), value.get("title")
    if isinstance(name, str) and title is None and name and not is_name(name):
        title = name = normalize_title(name)
    elif isinstance(title, str) and name in (None, ""):
        title = name = normalize_title(title)
    if not isinstance(name, str) or title is None or name != title:
        return value
    if is_name(title):
        return {key: each for key, each in value.items() if key != "title"} | {"name": title}
    return value | {"name": name_from_title(title), "title": title}


def check_title(name: str, title: str | None) -> None:
    """Raise ValueError if the title belongs to another name."""
    if title is not None and name_from_title(title) != name:
        raise ValueError(
            f"the title {title!r} belongs to the name {name_from_title(title)!r}: "
            "leave 'name' out, or 'title'"
        )


def _check_form(title: str, info: ValidationInfo) -> str:
    return title if info.context == STORED else normalize_title(title)


def name_from_text(text: str) -> str:
    """Return the name that a person means by a name or a title; raises ValueError for invalid text."""
    return text if is_name(text) else name_from_title(normalize_title(text))


Title = Annotated[
    str,
    Field(max_length=MAX_TITLE_LENGTH, examples=["ArtifactHUB Collector packages only"]),
    AfterValidator(_check_form),
]

# Left out where there is none: such records are, byte for byte, what earlier versions wrote and hashed.
OptionalTitle = Annotated[Title | None, Field(exclude_if=lambda title: title is None)]
NameOrTitle = Annotated[
    str,
    Field(max_length=MAX_TITLE_LENGTH, examples=["system-performance"]),
    AfterValidator(lambda text: text if is_name(text) else normalize_title(text)),
]
"""What a caller may write for a pipeline; `name_from_text` gives the name."""

Fault = Literal["tool", "engine", "infrastructure"]
MAX_STEPS = 40  # with a tool and two datasets each, all are checked in one transaction of the store
_ANY_FAULT: list[Fault] = ["tool", "engine", "infrastructure"]
Overlap = Literal["skip", "queue", "replace"]
LateTruth = Literal["skip", "own", "last"]
Agreement = Annotated[
    list[Annotated[str, Field(max_length=200)]], Field(max_length=200, examples=[["capability NET_RAW"]])
]


class Retry(Record):
    """How often a step is tried and how long to wait before the second try (doubled each time)."""

    attempts: int = Field(default=1, ge=1, le=20)
    backoff: Seconds = Field(default=30, le=86400)
    on: list[Fault] = Field(default_factory=_ANY_FAULT.copy, max_length=10)


class Step(Record):
    """One step of a pipeline. Unset command and limits come from the tool; env is merged over the tool's.

    `on_late_truth`: what a step does whose input's ground truth is not decided in time: it is skipped, reads
    this node's own branch, or the last ground truth there is. `engine_socket`: the tool gets the socket of
    Docker in this step, if the operator agrees. The later seed client's field names are accepted as well:
    `output_dataset`, `cmd` and `docker_socket`, and a name that is none is the step's title.
    """

    tool: Name
    dataset: Name
    name: Name = ""  # filled from the tool's name
    title: OptionalTitle = None
    input_dataset: Name | None = None
    input_branch: Name = GROUND_TRUTH
    command: OptionalCommand = None
    env: Env = Field(default_factory=dict)
    limits: Limits | None = None
    engine_socket: DockerSocket = False  # an earlier version reads no record with 'docker_socket'
    retry: Retry = Field(default_factory=Retry)
    allow_empty: bool = False  # a run that touches no file counts as done, without a snapshot
    on_late_truth: LateTruth = "skip"
    metrics: list[ControlMetric] = Field(default_factory=list, max_length=MAX_METRICS)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        value = _seed_words(value)
        value = value if info.context == STORED else fill_title(value)
        return {**value, "name": value.get("tool")} if value.get("name") in (None, "") else value

    @model_validator(mode="after")
    def _title_fits(self, info: ValidationInfo) -> Step:
        if info.context != STORED:
            check_title(self.name, self.title)
        return self


_SEED_WORDS = {"output_dataset": "dataset", "cmd": "command", "docker_socket": "engine_socket"}
_MAY_BE_EMPTY = ("input_dataset", "docker_socket")
"""What the seed's clients send empty, or as null, where there is none."""


def _seed_words(value: dict[str, Any]) -> dict[str, Any]:
    words = {key: item for key, item in value.items() if not (key in _MAY_BE_EMPTY and item in (None, ""))}
    for theirs, ours in _SEED_WORDS.items():
        if theirs in words and ours not in words:
            words[ours] = words.pop(theirs)
    return words


def _check_step_names(steps: list[Step]) -> list[Step]:
    names = [step.name for step in steps]
    if len(set(names)) != len(names):
        raise ValueError("two steps have the same name; give one of them another 'name'")
    return steps


Steps = Annotated[list[Step], Field(max_length=MAX_STEPS), AfterValidator(_check_step_names)]


class Pipeline(Named):
    """A registered pipeline. With a title, the name is derived from it."""

    title: OptionalTitle = None
    description: str = Field(default="", max_length=10_000)
    steps: Steps = Field(min_length=1)
    overlap: Overlap = "skip"

    @model_validator(mode="before")
    @classmethod
    def _take_title(cls, value: Any, info: ValidationInfo) -> Any:
        return fill_title(value) if isinstance(value, dict) and info.context != STORED else value

    @model_validator(mode="after")
    def _title_fits(self, info: ValidationInfo) -> Pipeline:
        if info.context != STORED:
            check_title(self.name, self.title)
        return self

    @property
    def called(self) -> str:
        """The title, or the name where there is none."""
        return self.title or self.name


class PipelineInit(Record):
    """Body of `POST /pipeline/init`: the seed's `{"tool", "dataset"}` or a pipeline with steps.

    `agree` lists what the operator grants to tools that ask for more than the hardened default
    (the words of `Tool.asked()`); `pull` says when an image is fetched before it is pinned. `command`, `env`
    and `engine_socket` (the seed's `docker_socket`) go with the seed's form only. A `name` that is none is
    the pipeline's title.
    """

    tool: Name | None = None
    dataset: Name | None = None
    name: Name | None = None
    title: OptionalTitle = None
    description: str = Field(default="", max_length=10_000)
    steps: Steps = Field(default_factory=list)
    overlap: Overlap = "skip"
    command: OptionalCommand = None
    env: Env = Field(default_factory=dict)
    engine_socket: DockerSocket = False
    agree: Agreement = Field(default_factory=list)
    pull: Pull = "missing"

    @model_validator(mode="before")
    @classmethod
    def _take_seed_words(cls, value: Any) -> Any:
        return fill_title(_seed_words(value)) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_form(self) -> PipelineInit:
        seed_form = self.tool is not None and self.dataset is not None and not self.steps
        seed_fields = (self.tool, self.dataset, self.command, self.env or None, self.engine_socket or None)
        steps_form = self.name is not None and bool(self.steps) and seed_fields == (None,) * 5
        if not (seed_form or steps_form):
            raise ValueError('send {"tool", "dataset"} or {"name", "steps": [{"tool", "dataset"}, …]}')
        if self.name is not None:
            check_title(self.name, self.title)
        return self

    def pipeline(self) -> Pipeline:
        """Return the pipeline this asks for; with the seed's form it has the tool's name and one step."""
        steps = self.steps
        if self.tool is not None and self.dataset is not None:
            words = {"command": self.command, "env": self.env, "engine_socket": self.engine_socket}
            steps = [Step(tool=self.tool, dataset=self.dataset, **words)]
        return Pipeline(
            name=self.name or self.tool or "",
            title=self.title,
            description=self.description,
            steps=steps,
            overlap=self.overlap,
        )
