"""Tool: a container image plus how to run it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .common import Bytes, Command, Env, Name, Record, Seconds

Network = Literal["none", "bridge", "host"]


class Limits(Record):
    """What one run of a tool may use. Sizes in bytes, time in seconds, cpu in cores."""

    cpu: float | None = Field(default=None, gt=0, le=1024)
    memory: Bytes = Field(default=1024**3, ge=6 * 1024**2)
    pids: int = Field(default=512, ge=1, le=1_000_000)
    time: Seconds = Field(default=3600, gt=0, le=30 * 86400)
    grace: Seconds = Field(default=10, le=600)  # between SIGTERM and SIGKILL


class Privileges(Record):
    """What a tool needs beyond the hardened default; the operator agrees at enrolment."""

    user: str | None = Field(default=None, max_length=64, examples=["root", "1000:1000"])
    capabilities: list[str] = Field(default_factory=list, examples=[["NET_RAW"]])
    new_privileges: bool = False

    def asked(self) -> list[str]:
        """Words for what is asked, empty when the default is enough."""
        words = [f"user {self.user}"] if self.user else []
        words += [f"capability {name}" for name in self.capabilities]
        return words + (["new privileges"] if self.new_privileges else [])


class Tool(Record):
    """A registered tool, as `POST /registry/tools` takes it and the registry keeps it."""

    name: Name
    author: str = Field(max_length=200)
    image: str = Field(min_length=1, max_length=500, examples=["lab/crawler:1.4"])
    data_repo: str = Field(default="", max_length=2000)
    code_repo: str = Field(default="", max_length=2000)
    artefact: str = Field(default="", max_length=500)
    description: str = Field(default="", max_length=10_000)
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    limits: Limits = Field(default_factory=Limits)
    network: Network = "bridge"
    privileges: Privileges = Field(default_factory=Privileges)

    @model_validator(mode="before")
    @classmethod
    def _flatten_body(cls, value: Any) -> Any:
        return flatten_body(value)

    def asked(self) -> list[str]:
        """What the operator has to agree to before this tool may run here."""
        return self.privileges.asked() + (["host network"] if self.network == "host" else [])


def flatten_body(value: Any) -> Any:
    """Accepts the seed's `{"name": …, "body": {…}}` beside the flat form."""
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        return {**value["body"], **{key: item for key, item in value.items() if key != "body"}}
    return value
