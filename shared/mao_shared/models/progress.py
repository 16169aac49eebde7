"""What the node is working on while a caller waits for its response."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Record


class OngoingWork(Record):
    """A part of a request's work that takes long.

    `done` of `total` in the unit; both may grow as more of the work is known, and `total` is 0 until any is.
    """

    what: Literal["pull", "clone"]
    subject: str = Field(examples=["busybox:1.36"])  # the image, or the dataset
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    unit: Literal["bytes", "objects"]
