"""The names and labels by which an installation finds its containers, and its id.

Two nodes on one machine share its engine: `mao.installation` tells their containers apart even if both
nodes have the same name.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mao_shared.errors import MaoError
from mao_shared.host.data_dir import make_data_dir_private
from mao_shared.logs import get_logger
from mao_shared.models import Run

INSTALLATION = "mao.installation"
NODE = "mao.node"
RUN = "mao.run"
STEP = "mao.step"
ATTEMPT = "mao.attempt"
PIPELINE = "mao.pipeline"
TOOL = "mao.tool"
CHECK = "mao.check"
HELPER = "mao.helper"  # a helper container of the runner, and the tools' network
USER = "mao.user"  # uid:gid of the tool, for the run's record


@dataclass(frozen=True, slots=True, order=True)
class StepAttempt:
    """One attempt of one step of a run; it has one container."""

    run: str
    step: int
    attempt: int


def installation_labels(installation: str) -> dict[str, str]:
    """Return the labels of all containers of this installation."""
    return {INSTALLATION: installation}


def container_name(node: str, key: StepAttempt) -> str:
    """Return the container's name, unique on the node.

    Node names and run ids contain only characters that engines allow.
    """
    return f"mao-{node}-{key.run}-{key.step}-{key.attempt}"


def container_labels(installation: str, run: Run, key: StepAttempt) -> dict[str, str]:
    spec = run.steps[key.step].spec
    return {
        INSTALLATION: installation,
        NODE: run.node,
        RUN: run.id,
        STEP: str(key.step),
        ATTEMPT: str(key.attempt),
        PIPELINE: run.pipeline,
        TOOL: spec.tool,
    }


def labelled_attempt(labels: Mapping[str, str]) -> StepAttempt | None:
    """Return the attempt that the labels name; None if they are not those of a step's container."""
    run, step, attempt = (labels.get(name, "") for name in (RUN, STEP, ATTEMPT))
    if not (run and all(number.isdecimal() and len(number) < 10 for number in (step, attempt))):
        return None
    return StepAttempt(run, int(step), int(attempt))


log = get_logger(__name__)

INSTALLATION_FILE = "installation"
_INSTALLATION_ID = re.compile(rb"[0-9a-f]{16}\n?")


def installation_id(data_dir: Path) -> str:
    """Return the id in the data directory, created at the first start. Blocks.

    A file without a valid id (damaged by a power cut) is renamed and a new id created: the power cut has
    ended the containers with the old one.

    Raises MaoError (`data-dir-unusable`) if the directory cannot be written.
    """
    path = data_dir / INSTALLATION_FILE
    try:
        make_data_dir_private(data_dir)
        if not path.exists():
            _create_id(path)
        elif _INSTALLATION_ID.fullmatch(path.read_bytes()) is None:
            torn = path.with_name(f"{INSTALLATION_FILE}.torn-{secrets.token_hex(4)}")
            path.rename(torn)
            log.error("installation.torn", kept=str(torn))
            _create_id(path)
        return path.read_text().strip()
    except OSError as error:
        raise MaoError(
            f"The data directory {data_dir} cannot be used: {error.strerror}.",
            code="data-dir-unusable",
            next="Set MAO_DATA_DIR to a folder that the node's user can write.",
        ) from error


def _create_id(path: Path) -> None:
    """Create the file atomically, and only once even if several processes try."""
    draft = path.with_name(f".{INSTALLATION_FILE}-{secrets.token_hex(4)}")
    with draft.open("w") as file:
        file.write(secrets.token_hex(8) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
