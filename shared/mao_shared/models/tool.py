"""Tools: container images and how to run them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from .common import Bytes, Command, Env, Named, OptionalCommand, OrNewer, Record, Seconds
from .secret import SecretRef, SecretRefs

Network = Literal["none", "bridge", "host"]
Pull = Literal["missing", "always", "never"]  # when to pull an image before pinning it
ToolNetworkKind = Literal["isolated", "bridge"]  # the meaning of network `bridge` on a node
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_PATH = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}/)?{_PATH}(?:/{_PATH})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


def is_image_reference(text: str) -> bool:
    """Return True for an image id or a reference [host[:port]/]path[:tag][@sha256:…]."""
    return bool(_IMAGE_ID.fullmatch(text) or _REFERENCE.fullmatch(text))


def _check_image(text: str) -> str:
    if not is_image_reference(text):
        raise ValueError("invalid image reference; write for example 'busybox:1.36' or 'lab/crawler:1.4'")
    return text


def _check_user(text: str) -> str:
    if not re.fullmatch(r"root(?::root)?|[0-9]{1,9}(?::[0-9]{1,9})?", text):
        raise ValueError(
            "invalid user; write 'root' or numbers such as 1000:1000 (names depend on the image)"
        )
    return text


Image = Annotated[
    str,
    Field(min_length=1, max_length=500, examples=["mao-example/system-performance:1.0.0"]),
    AfterValidator(_check_image),
]
User = Annotated[str, Field(max_length=64, examples=["root", "1000:1000"]), AfterValidator(_check_user)]
Capability = Annotated[
    str,
    BeforeValidator(lambda name: name.upper().removeprefix("CAP_") if isinstance(name, str) else name),
    Field(pattern="^[A-Z_]{2,40}$", examples=["NET_RAW"]),
]


class Limits(Record):
    """Limits of one run of a tool. Sizes in bytes, time in seconds, cpu in cores."""

    cpu: float | None = Field(default=None, gt=0, le=1024)
    memory: Bytes = Field(default=1024**3, ge=6 * 1024**2)
    pids: int = Field(default=512, ge=1, le=1_000_000)
    time: Seconds = Field(default=3600, gt=0, le=30 * 86400)
    grace: Seconds = Field(default=10, le=600)  # between SIGTERM and SIGKILL


DOCKER_SOCKET = "docker socket"
# Omitted when off: a version that does not know it writes and hashes the same document.
DockerSocket = Annotated[bool, Field(exclude_if=lambda on: not on)]
RISKS = {DOCKER_SOCKET: "root on this host: it can start any container, and so change everything"}
"""Risks of privileges whose name does not make them obvious."""


def asked_words(words: Iterable[str]) -> str:
    """Return the requested privileges with their risks, for the operator's decision."""
    return ", ".join(f"{word} ({RISKS[word]})" if word in RISKS else word for word in words)


class Privileges(Record):
    """Privileges beyond the hardened default; the operator agrees to them at enrolment."""

    user: User | None = None
    capabilities: list[Capability] = Field(default_factory=list, max_length=50)
    new_privileges: bool = False
    docker_socket: DockerSocket = False

    def asked(self) -> list[str]:
        """Return the requested privileges as text; empty if the default is enough."""
        words = [f"user {self.user}"] if self.user else []
        words += [f"capability {name}" for name in self.capabilities]
        words += ["new privileges"] if self.new_privileges else []
        return words + ([DOCKER_SOCKET] if self.docker_socket else [])


def flatten_body(value: Any) -> Any:
    """Accept the seed's `{"name": …, "body": {…}}` beside the flat form."""
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        return {**value["body"], **{key: item for key, item in value.items() if key != "body"}}
    return value


class Tool(Named):
    """A registered tool, as accepted by `POST /registry/tools` and stored by the registry."""

    author: str = Field(default="", max_length=200)
    image: Image
    data_repo: str = Field(default="", max_length=2000)
    code_repo: str = Field(default="", max_length=2000)
    artefact: str = Field(default="", max_length=500)
    description: str = Field(default="", max_length=10_000)
    command: OptionalCommand = None
    env: Env = Field(default_factory=dict)
    limits: Limits = Field(default_factory=Limits)
    network: Network = "bridge"
    privileges: Privileges = Field(default_factory=Privileges)
    secrets: SecretRefs = Field(default_factory=list)

    _flatten = model_validator(mode="before")(flatten_body)

    def asked(self) -> list[str]:
        """Return the privileges and network that the operator must agree to before this tool runs here."""
        return asked(self.privileges, self.network, self.secrets)


def asked(privileges: Privileges, network: Network, secrets: Iterable[SecretRef] = ()) -> list[str]:
    """Return the requested privileges, network and secrets beyond the hardened default, as text."""
    words = privileges.asked() + (["host network"] if network == "host" else [])
    return words + secret_words(secrets)


def secret_words(secrets: Iterable[SecretRef]) -> list[str]:
    """Return the requested secrets as text."""
    return [f"secret {name}" for name in sorted({ref.secret for ref in secrets})]


def network_words(network: Network) -> str:
    """Return a description of the network and what a tool can reach on it, for the operator."""
    match network:
        case "none":
            return "none (reaches nothing)"
        case "host":
            return "host (the host's own network, and all that listens on it)"
        case "bridge":
            return (
                "bridge (reaches the world outside; not this host, other tools or link-local, "
                "unless MAO_TOOL_NETWORK=bridge is set)"
            )


FindingName = Annotated[
    Literal[
        "image",
        "image-layout",
        "same-image",
        "ends",
        "exit-code",
        "unattended",
        "non-root",
        "writes-data",
        "writes-only-data",
        "tried-elsewhere",
    ],
    OrNewer,
]


class ImageRequest(Record):
    """Body of `POST /images/resolve`."""

    image: Image
    pull: Pull = Field(default="missing", description="Whether to ask the image's registry")


InputName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
InputText = Annotated[str, Field(max_length=1024**2)]


class CheckRequest(Record):
    """Body of `POST /tools/check`. `timeout`: seconds for both trial runs; `input`: text files by name.

    `network` and `privileges` are those of a tool's record. The engine's socket is never granted.
    """

    image: Image
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    input: dict[InputName, InputText] = Field(
        default_factory=dict, max_length=20, examples=[{"performance.csv": "node,hash_mb_s\nn1,180\n"}]
    )
    network: Network = "bridge"
    privileges: Privileges = Field(default_factory=Privileges)
    timeout: Seconds = Field(default=60, gt=0, le=3600)
    once: bool = Field(
        default=False, description="Skip the second trial run, which shows writes to other paths"
    )
    pull: Pull = "missing"

    @field_validator("privileges")
    @classmethod
    def _without_socket(cls, asked: Privileges) -> Privileges:
        if asked.docker_socket:
            raise ValueError("a check never grants the engine's socket: omit 'docker_socket'")
        return asked


class CheckFinding(Record):
    """Result of one check. `advice`: how to fix or improve it."""

    name: FindingName
    ok: bool
    detail: str
    advice: str | None = None


class CheckReport(Record):
    """Result of checking an image. `written`: files under /usr/src/app/data; `tried`: other paths that it
    tried to write, as seen in a second trial run with permission to do so."""

    image: str
    compliant: bool
    pinned: str | None = None
    findings: list[CheckFinding]
    exit_code: int | None = None
    seconds: float | None = None
    written: list[str] = Field(default_factory=list)
    tried: list[str] = Field(default_factory=list)
    log: str = ""
