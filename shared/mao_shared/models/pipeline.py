"""Pipelines: ordered steps, each a tool and its datasets; titles and the names derived from them.

A title is any line of text, as the original allowed for pipelines and steps. Branches, labels and paths use
the name, which is derived from the title alone, so that all nodes derive the same name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from .alarm import MAX_METRICS, ControlMetric
from .check import Checks, validate_checks
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
from .secret import SecretRefs
from .tool import DockerSocket, Limits, Privileges, asked
from .tool import Pull as Pull

MAX_TITLE_LENGTH = 500
_HASH = 8  # hexadecimal digits of the title's SHA-256, appended where titles would collide
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)


def normalize_title(text: str) -> str:
    """Return the title in the form in which it is stored and compared: NFC, without surrounding blanks.

    Raises ValueError for anything but a single line of text.
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

    Accents are removed, other characters that are invalid in a name become '-'. A title that is too long, or
    has no valid character, gets digits of its hash, so that similar titles have different names.
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
    """Return the fields with an invalid `name` moved to `title`, and `name` derived from the title. Pure."""
    name, title = value.get("name"), value.get("title")
    if isinstance(name, str) and title is None and name and not is_name(name):
        title = name = normalize_title(name)
    elif isinstance(title, str) and name in (None, ""):
        title = name = normalize_title(title)
    if not isinstance(name, str) or title is None or name != title:
        return value
    if is_name(title):
        return {key: field for key, field in value.items() if key != "title"} | {"name": title}
    return value | {"name": name_from_title(title), "title": title}


def check_title(name: str, title: str | None) -> None:
    """Raise ValueError if the name is not the one derived from the title."""
    if title is not None and name_from_title(title) != name:
        raise ValueError(
            f"the title {title!r} belongs to the name {name_from_title(title)!r}: "
            "leave 'name' out, or 'title'"
        )


def _check_form(title: str, info: ValidationInfo) -> str:
    return title if info.context == STORED else normalize_title(title)


def name_from_text(text: str) -> str:
    """Return the name for a name or a title; raises ValueError for invalid text."""
    return text if is_name(text) else name_from_title(normalize_title(text))


Title = Annotated[
    str,
    Field(max_length=MAX_TITLE_LENGTH, examples=["ArtifactHUB Collector packages only"]),
    AfterValidator(_check_form),
]

# Omitted if unset: the record is then byte for byte what earlier versions wrote and hashed.
OptionalTitle = Annotated[Title | None, Field(exclude_if=lambda title: title is None)]
NameOrTitle = Annotated[
    str,
    Field(max_length=MAX_TITLE_LENGTH, examples=["system-performance"]),
    AfterValidator(lambda text: text if is_name(text) else normalize_title(text)),
]
"""The name or title of a pipeline in a request; `name_from_text` returns the name."""

Fault = Literal["tool", "engine", "infrastructure"]
MAX_STEPS = 40  # with a tool and two datasets each, all are checked in one transaction of the store
_ANY_FAULT: list[Fault] = ["tool", "engine", "infrastructure"]
Overlap = Literal["skip", "queue", "replace"]
LateTruth = Literal["skip", "own", "last"]
# Omitted when off, like DockerSocket.
RecordEnv = Annotated[bool, Field(exclude_if=lambda on: not on)]
Agreement = Annotated[
    list[Annotated[str, Field(max_length=200)]], Field(max_length=200, examples=[["capability NET_RAW"]])
]


class Retry(Record):
    """Number of attempts of a step, and the wait before the second one (doubled for each further one)."""

    attempts: int = Field(default=1, ge=1, le=20)
    backoff: Seconds = Field(default=30, le=86400)
    on: list[Fault] = Field(default_factory=_ANY_FAULT.copy, max_length=10)


class Step(Record):
    """One step of a pipeline. Unset command and limits come from the tool; env is merged over the tool's.

    `on_late_truth`: if the input's ground truth is not decided in time, skip the step, read this node's own
    branch, or read the latest ground truth. `engine_socket`: mount Docker's socket in this step, if the
    operator agrees. `secrets`: in addition to the tool's. `record_env`: publish the values of `env` with each
    commit, not only their names. The later seed client's field names are accepted as well: `output_dataset`,
    `cmd` and `docker_socket`; an invalid name is taken as the step's title.
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
    engine_socket: DockerSocket = False  # earlier versions cannot read records with 'docker_socket'
    secrets: SecretRefs = Field(default_factory=list)
    record_env: RecordEnv = False
    retry: Retry = Field(default_factory=Retry)
    allow_empty: bool = False  # a run without output succeeds, without a snapshot
    on_late_truth: LateTruth = "skip"
    metrics: list[ControlMetric] = Field(default_factory=list, max_length=MAX_METRICS)
    checks: Checks = Field(default_factory=list)

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
            validate_checks(self.checks, self.metrics)
        return self

    def asked(self) -> list[str]:
        """Return what the step requests in addition to its tool."""
        return asked(Privileges(docker_socket=self.engine_socket), "bridge", self.secrets)


_SEED_WORDS = {"output_dataset": "dataset", "cmd": "command", "docker_socket": "engine_socket"}
_MAY_BE_EMPTY = ("input_dataset", "docker_socket")
"""Fields that the seed's clients send empty or null when they are unset."""


def _seed_words(value: dict[str, Any]) -> dict[str, Any]:
    words = {key: item for key, item in value.items() if not (key in _MAY_BE_EMPTY and item in (None, ""))}
    for seed_name, name in _SEED_WORDS.items():
        if seed_name in words and name not in words:
            words[name] = words.pop(seed_name)
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

    `agree`: privileges beyond the hardened default that the operator grants (as in `Tool.asked()`); `pull`:
    when to pull an image before pinning it. `command`, `env` and `engine_socket` (the seed's `docker_socket`)
    belong to the seed's form only. An invalid `name` is taken as the pipeline's title.
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
        """Return the requested pipeline; in the seed's form it has one step and the tool's name."""
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
