"""Pipeline: ordered steps; a step = tool + output dataset (+ input dataset, command, env, limits)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .common import GROUND_TRUTH, Command, Env, Name, Record, Seconds
from .tool import Limits

Fault = Literal["tool", "engine", "infrastructure"]
_ANY_FAULT: list[Fault] = ["tool", "engine", "infrastructure"]
Overlap = Literal["skip", "queue", "replace"]


class Retry(Record):
    """How often a step is tried and how long to wait before the second try (doubled each time)."""

    attempts: int = Field(default=1, ge=1, le=20)
    backoff: Seconds = Field(default=30, le=86400)
    on: list[Fault] = Field(default_factory=_ANY_FAULT.copy)


class Step(Record):
    """One step of a pipeline. Unset command and limits come from the tool; env is laid over the tool's."""

    tool: Name
    dataset: Name
    name: Name = ""  # filled from the tool's name
    input_dataset: Name | None = None
    input_branch: str = Field(default=GROUND_TRUTH, max_length=200)
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    limits: Limits | None = None
    retry: Retry = Field(default_factory=Retry)
    allow_empty: bool = False  # a run that touches no file counts as done, without a snapshot

    @model_validator(mode="before")
    @classmethod
    def _name_from_tool(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name"):
            return {**value, "name": value.get("tool")}
        return value


class Pipeline(Record):
    """A registered pipeline."""

    name: Name
    description: str = Field(default="", max_length=10_000)
    steps: list[Step] = Field(min_length=1, max_length=50)
    overlap: Overlap = "skip"

    @model_validator(mode="after")
    def _distinct_step_names(self) -> Pipeline:
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise ValueError("two steps have the same name; give one of them a 'name' of its own")
        return self


class PipelineInit(Record):
    """Body of `POST /pipeline/init`: the seed's `{"tool", "dataset"}` or a pipeline with steps.

    `agree` lists what the operator grants to tools that ask for more than the hardened default
    (the words of `Tool.asked()`).
    """

    tool: Name | None = None
    dataset: Name | None = None
    name: Name | None = None
    description: str = Field(default="", max_length=10_000)
    steps: list[Step] = Field(default_factory=list, max_length=50)
    overlap: Overlap = "skip"
    agree: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_form(self) -> PipelineInit:
        seed_form = self.tool is not None and self.dataset is not None and not self.steps
        steps_form = self.name is not None and bool(self.steps) and self.tool is None and self.dataset is None
        if not (seed_form or steps_form):
            raise ValueError('send {"tool", "dataset"} or {"name", "steps": [{"tool", "dataset"}, …]}')
        return self

    def pipeline(self) -> Pipeline:
        """The pipeline this asks for; with the seed's form it bears the tool's name and has one step."""
        if self.tool is not None and self.dataset is not None:
            steps = [Step(tool=self.tool, dataset=self.dataset)]
            return Pipeline(
                name=self.name or self.tool, description=self.description, steps=steps, overlap=self.overlap
            )
        return Pipeline(
            name=self.name or "", description=self.description, steps=self.steps, overlap=self.overlap
        )
