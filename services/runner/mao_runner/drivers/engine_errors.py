"""What the engine answers, told apart: pure, by status and words (the engine has no codes)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mao_shared.errors import InvalidInput, MaoError, Unavailable

from .protocol import EngineRefused

NOT_ALLOWED = ("denied", "unauthorized", "authentication required", "no basic auth")
NOT_THERE = (
    "not found",
    "does not exist",
    "manifest unknown",
    "no such image",
    "no matching manifest",
    "name unknown",
)
NOT_A_NAME = ("invalid reference format", "repository name must be")
CANNOT_EXECUTE = (
    "executable file not found",
    "permission denied",
    "no such file or directory",
    "exec format error",
    "is a directory",
    "no command specified",
    "unable to find user",
)


_NO_NETWORK = re.compile(r"network (\S+) not found")


class RegistryUnavailable(Unavailable):
    """An image's registry does not answer."""

    default_code = "image-registry-unreachable"


def pull_error(image: str, words: str, *, here: bool = False) -> MaoError:
    """Why an image could not be pulled. `here`: there is one on this node; only a newer one was asked for.

    A public registry says the same of what is private and of what does not exist; the latter is likelier.
    """
    if _has(words, NOT_A_NAME):
        return InvalidInput(
            f"{image!r} is not an image reference: {words}.",
            code="image-invalid",
            next="Write it like 'busybox:1.36' or 'registry.example.org/lab/crawler:1.4'.",
        )
    if _has(words, NOT_THERE):
        return image_not_found(image, words)
    if _has(words, NOT_ALLOWED):
        return InvalidInput(
            f"The registry does not give the image {image} to this node: {words}.",
            code="image-pull-denied",
            next="Check the name; for a private image run 'docker login' for its registry on this node.",
        )
    if not here:
        return image_not_found(image, f"it is not on this node, and its registry does not answer: {words}")
    return RegistryUnavailable(
        f"The registry of the image {image} does not answer: {words}.",
        next="Check the network, or use the image as it is on this node with the pull policy 'missing'.",
    )


def image_not_found(image: str, words: str) -> InvalidInput:
    return InvalidInput(
        f"There is no image {image}: {words}.",
        code="image-not-found",
        next=f"Check name and tag (and 'docker login' if it is private); bring it here: docker pull {image}.",
    )


def launch_error(image: str, status: int, words: str) -> EngineRefused:
    """Why a container could not be created or started."""
    if "bind source path does not exist" in words:
        return EngineRefused(
            f"The engine does not find the step's workspace: {words}.",
            code="workspace-missing",
            next="Check that the data directory is there and MAO_HOSTDIR right: maoctl doctor.",
        )
    if status == 404 and (network := _NO_NETWORK.search(words)):
        return EngineRefused(
            f"The network {network[1]} has been removed from the engine.",
            code="tool-network-missing",
            next="The runner makes it anew; nothing has to be done.",
        )
    if status == 404 and _has(words, NOT_THERE):
        return EngineRefused(
            f"The image {image} has been removed from this node.",
            code="image-not-found",
            next=f"docker pull {image}, or enrol again to pin another one; then run the pipeline again.",
        )
    if _has(words, CANNOT_EXECUTE):
        return EngineRefused(
            f"The tool's command cannot be started: {words}.",
            code="tool-cannot-start",
            next="Check command and entry point of the image: maoctl tool check.",
        )
    return EngineRefused(
        f"The engine does not run the container: {words}.",
        next="The engine's log says more: journalctl -u docker.",
    )


def _has(words: str, signs: Iterable[str]) -> bool:
    lower = words.lower()
    return any(sign in lower for sign in signs)
