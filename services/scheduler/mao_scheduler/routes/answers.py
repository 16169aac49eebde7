"""What the routes have in common."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Depends, Response

from mao_scheduler.wiring import Scheduler, scheduler_of
from mao_shared.models.common import Record
from mao_shared.store import Stored
from mao_shared.web.http import etag

R = TypeVar("R", bound=Record)
Parts = Annotated[Scheduler, Depends(scheduler_of)]


def answer(stored: Stored[R], response: Response) -> R:
    """The record, with its revision as the ETag."""
    response.headers["ETag"] = etag(stored.revision)
    return stored.record
