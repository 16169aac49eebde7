"""Reading the documents and messages of Docker Engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mao_runner.drivers.docker_responses import (
    image_platform,
    launch_error,
    one_line,
    pinned_reference,
    pull_error,
    read_container,
    read_event,
    read_time,
)
from mao_runner.drivers.protocol import ContainerState

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
IMAGE_ID = "sha256:" + "c" * 64


@pytest.mark.parametrize(
    ("name", "digests", "pinned"),
    [
        ("busybox:1.36", [f"busybox@{DIGEST}"], f"busybox@{DIGEST}"),
        ("docker.io/library/busybox", [f"busybox@{DIGEST}"], f"busybox@{DIGEST}"),
        (
            "ghcr.io/lab/x:1",
            [f"mirror:5000/lab/x@{OTHER}", f"ghcr.io/lab/x@{DIGEST}"],
            f"ghcr.io/lab/x@{DIGEST}",
        ),
        ("localhost:5000/x", [f"localhost:5000/x@{DIGEST}"], f"localhost:5000/x@{DIGEST}"),
        ("local/x:1", [], IMAGE_ID),
        ("local/x:1", [f"upstream/x@{DIGEST}"], IMAGE_ID),
        (f"busybox@{DIGEST}", [f"busybox@{DIGEST}"], f"busybox@{DIGEST}"),
        ("local/x:1", None, IMAGE_ID),
    ],
)
def test_pinned_reference_by_digest_or_id(name: str, digests: list[str] | None, pinned: str) -> None:
    assert pinned_reference(name, {"Id": IMAGE_ID, "RepoDigests": digests}) == pinned


def test_image_platform() -> None:
    assert image_platform({"Os": "linux", "Architecture": "arm64", "Variant": "v8"}) == "linux/arm64/v8"
    assert image_platform({"Os": "linux", "Architecture": "amd64", "Variant": ""}) == "linux/amd64"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-24T07:33:30.378294160Z", datetime(2026, 11, 24, 7, 33, 30, 378294, UTC)),
        ("2026-11-24T07:33:30Z", datetime(2026, 11, 24, 7, 33, 30, 0, UTC)),
        ("2026-11-24T07:33:30.5Z", datetime(2026, 11, 24, 7, 33, 30, 500000, UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_read_time(text: str, wanted: datetime | None) -> None:
    assert read_time(text) == wanted


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ("created", "created", None),
        ("running", "running", None),
        ("paused", "running", None),
        ("exited", "exited", 3),
    ],
)
def test_read_container(status: str, state: ContainerState, code: int | None) -> None:
    inner: dict[str, Any] = {
        "Status": status,
        "ExitCode": 3,
        "OOMKilled": False,
        "FinishedAt": "2026-11-24T07:33:30Z",
    }
    read = read_container({"Id": "i", "Name": "/n", "Config": {"Labels": None}, "State": inner})
    assert (read.name, read.state, read.exit_code) == ("n", state, code)
    assert read.killed is None
    assert (read.finished_at is None) == (code is None)


def test_read_event() -> None:
    raw = {
        "Action": "die",
        "timeNano": 10**18,
        "Actor": {"ID": "i", "Attributes": {"name": "n", "exitCode": "4"}},
    }
    event = read_event(raw)
    assert event is not None
    assert (event.what, event.name, event.exit_code, event.at.year) == ("die", "n", 4, 2001)
    assert read_event({**raw, "Action": "exec_create: sh"}) is None


@pytest.mark.parametrize(
    ("words", "here", "status", "code"),
    [
        ("manifest for x:1 not found: manifest unknown", False, 422, "image-not-found"),
        (
            "pull access denied for x, repository does not exist or may require 'docker login'",
            False,
            422,
            "image-not-found",
        ),
        ("unauthorized: authentication required", False, 422, "image-pull-denied"),
        ("dial tcp: lookup registry: no such host", False, 422, "image-not-found"),
        ("dial tcp: lookup registry: no such host", True, 503, "image-registry-unreachable"),
        ("invalid reference format: repository name must be lowercase", False, 422, "image-invalid"),
    ],
)
def test_pull_error_kinds(words: str, here: bool, status: int, code: str) -> None:
    error = pull_error("x:1", words, here=here)
    assert (error.status, error.code) == (status, code)
    assert error.next
    assert words in error.detail


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (404, "No such image: x", "image-not-found"),
        (
            400,
            'invalid mount config for type "bind": bind source path does not exist: /x',
            "workspace-missing",
        ),
        (400, 'exec: "nope": executable file not found in $PATH', "tool-cannot-start"),
        (400, 'unable to start container process: exec: "/x": permission denied', "tool-cannot-start"),
        (400, "unable to find user app: no matching entries in passwd file", "tool-cannot-start"),
        (500, "no space left on device", "engine-refused"),
    ],
)
def test_launch_error_kinds(status: int, words: str, code: str) -> None:
    error = launch_error("x", status, words)
    assert error.code == code
    assert error.next


def test_one_line_shortens() -> None:
    assert one_line("a\n b") == "a b"
    assert len(one_line("x" * 1000)) == 400
