"""Secrets of a node, such as passwords and API keys for its tools, and how a step names them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from .common import STORED, EnvName, Name, Record, Timestamp

MAX_SECRET = 32_768  # bytes
MIN_SECRET = 4  # bytes; shorter ones cannot be masked in logs
MAX_SECRETS = 50  # of one step
TOOL_SECRETS = "/run/secrets"  # in the tool's container


class SecretRef(Record):
    """A secret that a step gets: in the variable `env`, or else in the file `/run/secrets/<secret>`.

    `"NAME"` is accepted for `{"secret": "NAME"}`.
    """

    secret: Name = Field(examples=["github-token"])
    env: EnvName | None = Field(default=None, examples=["GITHUB_TOKEN"])

    @model_validator(mode="before")
    @classmethod
    def _take_name(cls, value: Any) -> Any:
        return {"secret": value} if isinstance(value, str) else value

    @property
    def target(self) -> str:
        """Where the tool finds it: `$VARIABLE` or the path of a file."""
        return f"${self.env}" if self.env else f"{TOOL_SECRETS}/{self.secret}"


def _check_targets(refs: list[SecretRef], info: ValidationInfo) -> list[SecretRef]:
    targets = [ref.target for ref in refs]
    if info.context != STORED and (twice := next((t for t in targets if targets.count(t) > 1), None)):
        raise ValueError(f"two secrets are given in {twice}")
    return refs


# Omitted when empty: a version that does not know it writes and hashes the same document.
SecretRefs = Annotated[
    list[SecretRef],
    Field(max_length=MAX_SECRETS, exclude_if=lambda refs: not refs),
    AfterValidator(_check_targets),
]


class SealedSecret(Record):
    """A secret as stored under `keys.secret(node, name)`, encrypted together with its name.

    `previous`: the value before the last change. Logs are searched for it too, since a tool that was
    started with it may still run.
    """

    key_field = "name"
    name: Name
    sealed: str
    previous: str | None = None
    created_at: Timestamp
    changed_at: Timestamp


class SecretValue(Record):
    """Body of `PUT /secrets/{name}`. No response ever contains the value."""

    value: str = Field(min_length=1, max_length=MAX_SECRET, examples=["s3cret-example"])


class SecretState(Record):
    """A secret in a response. `used_by`: `pipeline/step` of this node's enrolments that are given it."""

    name: Name = Field(examples=["github-token"])
    created_at: Timestamp
    changed_at: Timestamp
    used_by: list[str] = Field(default_factory=list, examples=[["stars/collect"]])


class SecretsRotated(Record):
    """Result of `POST /secrets/keys/rotate`."""

    secrets: int = Field(description="Number of secrets that were encrypted with the new key")
