"""What the routes have in common."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Depends, Query, Response

from mao_scheduler.scheduler import Scheduler, scheduler_of
from mao_shared.models.common import Record
from mao_shared.models.pipeline import NameOrTitle
from mao_shared.store import Stored
from mao_shared.web.http import etag

R = TypeVar("R", bound=Record)
Parts = Annotated[Scheduler, Depends(scheduler_of)]


async def of_pipeline(
    parts: Parts,
    pipeline: Annotated[NameOrTitle | None, Query(description="Name or title of a pipeline")] = None,
) -> str | None:
    """Dependency: the name of the pipeline by which a list is narrowed."""
    return None if pipeline is None else await parts.enrolled.named(pipeline)


OfPipeline = Annotated[str | None, Depends(of_pipeline)]


def answer(stored: Stored[R], response: Response) -> R:
    """The record, with its revision as the ETag."""
    response.headers["ETag"] = etag(stored.revision)
    return stored.record
