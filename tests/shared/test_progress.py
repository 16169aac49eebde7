"""Progress of what requests wait for: by request, through threads, forgotten at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mao_shared.models.progress import OngoingWork
from mao_shared.progress import OngoingRequests, report_progress
from mao_shared.request_context import accept_request_id, current_request_id, numbered_request

PULL = OngoingWork(what="pull", subject="busybox:1.36", unit="bytes")
CLONE = OngoingWork(what="clone", subject="data", unit="objects")


@pytest.fixture(autouse=True)
def request_id() -> Iterator[str]:
    with numbered_request() as made:
        yield made


def shares(ongoing: OngoingRequests, request_id: str) -> list[tuple[str, int, int]]:
    return [(work.subject, work.done, work.total) for work in ongoing.of(request_id)]


async def test_progress_is_known_by_request_while_it_lasts(request_id: str) -> None:
    ongoing = OngoingRequests()
    with ongoing.track(PULL):
        assert shares(ongoing, request_id) == [("busybox:1.36", 0, 0)]
        await asyncio.to_thread(report_progress, 3, 10)  # which copies the context to the thread
        with ongoing.track(CLONE):
            report_progress(1, 2)
            assert shares(ongoing, request_id) == [("busybox:1.36", 3, 10), ("data", 1, 2)]
        assert ongoing.of("another") == []
        report_progress(4, 10)
        assert shares(ongoing, request_id) == [("busybox:1.36", 4, 10)]
    assert ongoing.of(request_id) == []
    assert (PULL.done, PULL.total) == (0, 0)


def test_progress_ends_with_an_error(request_id: str) -> None:
    ongoing = OngoingRequests()
    with pytest.raises(ValueError, match="broken"), ongoing.track(PULL):
        raise ValueError("broken")
    assert ongoing.of(request_id) == []
    report_progress(1, 2)  # of nobody


async def test_progress_of_equal_work_of_two_requests_is_apart() -> None:
    ongoing = OngoingRequests()
    both = asyncio.Barrier(2)

    async def one(done: int) -> list[tuple[str, int, int]]:
        name = accept_request_id(None)
        with ongoing.track(PULL), ongoing.track(PULL):
            await both.wait()
            report_progress(done, 9)
            await both.wait()
            return shares(ongoing, name)

    assert list(await asyncio.gather(one(1), one(2))) == [
        [("busybox:1.36", 0, 0), ("busybox:1.36", done, 9)] for done in (1, 2)
    ]


def test_request_id_of_a_block_ends_with_it(request_id: str) -> None:
    with numbered_request() as inner:
        assert current_request_id() == inner != request_id
    assert current_request_id() == request_id
