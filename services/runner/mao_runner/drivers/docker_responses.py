"""The engine's documents read into our types: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .protocol import Container, ContainerState, Happened, ImageConfig

_STATES: dict[str, ContainerState] = {
    "created": "created",
    "running": "running",
    "paused": "running",
    "restarting": "running",
    "removing": "exited",
    "exited": "exited",
    "dead": "exited",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*Z")
FOLLOWED = frozenset({"start", "kill", "oom", "die", "destroy"})
WORDS_MAX = 400
NEVER = 1  # the year of times that have not come yet


def read_container(document: Mapping[str, Any]) -> Container:
    """From `GET /containers/{id}/json`."""
    state = document["State"]
    ours = _STATES.get(state["Status"], "running")
    ended = ours == "exited"
    return Container(
        id=document["Id"],
        name=document["Name"].removeprefix("/"),
        labels=document["Config"].get("Labels") or {},
        state=ours,
        exit_code=state["ExitCode"] if ended else None,
        oom=bool(state.get("OOMKilled")),
        finished_at=read_time(state.get("FinishedAt", "")) if ended else None,
    )


def read_image_config(document: Mapping[str, Any]) -> ImageConfig:
    """From `GET /images/{name}/json`."""
    config = document.get("Config") or {}
    words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    return ImageConfig(
        workdir=config.get("WorkingDir") or "/",
        volumes=sorted(config.get("Volumes") or {}),
        words=[str(word) for word in words],
    )


def read_event(event: Mapping[str, Any]) -> Happened | None:
    """From one line of `GET /events`; None for what we do not follow."""
    what, actor = event.get("Action"), event.get("Actor") or {}
    if what not in FOLLOWED:
        return None
    attributes = actor.get("Attributes") or {}
    code = attributes.get("exitCode")
    return Happened(
        what=what,
        id=actor["ID"],
        name=attributes.get("name", ""),
        labels=attributes,
        at=datetime.fromtimestamp(event["timeNano"] / 1e9, UTC),
        exit_code=int(code) if code is not None else None,
    )


def read_time(text: str) -> datetime | None:
    """The engine's nanosecond times; None for its zero time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    moment = datetime.fromisoformat(match[1] + (match[2] or "")).replace(tzinfo=UTC)
    return None if moment.year == NEVER else moment


def image_pinned(name: str, document: Mapping[str, Any]) -> str:
    """`repository@sha256:…` of the registry it came from, else the image's id.

    An image may have been pushed to several; the digest of the repository that `name` means is taken.
    """
    repository = _repository(name)
    for digest in document.get("RepoDigests") or []:
        if _repository(digest) == repository:
            return str(digest)
    return str(document["Id"])


def _repository(name: str) -> str:
    bare = name.partition("@")[0]
    head, _, last = bare.rpartition("/")
    path = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    return path.removeprefix("docker.io/").removeprefix("library/")


def platform(document: Mapping[str, Any]) -> str:
    """os/architecture[/variant]"""
    parts = (document.get(key) for key in ("Os", "Architecture", "Variant"))
    return "/".join(str(part) for part in parts if part)


def containers_own(there: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a container bears all labels that the wanted one would."""
    return all(there.get(name) == value for name, value in wanted.items())


def short(words: str) -> str:
    """One line of at most WORDS_MAX characters."""
    line = " ".join(words.split())
    return line if len(line) <= WORDS_MAX else line[: WORDS_MAX - 1] + "…"
