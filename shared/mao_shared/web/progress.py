"""`/progress/{request}` of every service: what a request waits for. The gateway's asks the others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from mao_shared.models import Listing
from mao_shared.models.progress import OngoingWork
from mao_shared.progress import OngoingRequests

router = APIRouter(include_in_schema=False)  # for the gateway
RequestId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="The `X-Request-ID` that the request was sent with",
        examples=["4f1c2a9be07d3358"],
    ),
]


@router.get("/progress/{request_id}")
async def get_progress(request: Request, request_id: RequestId) -> Listing[OngoingWork]:
    ongoing: OngoingRequests = request.app.state.ongoing
    return Listing(items=ongoing.of(request_id))
