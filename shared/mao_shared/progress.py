"""Progress of what a request waits for, by the request's id, so that its caller can ask for it meanwhile.

It is in memory only. The code that does the work calls `report_progress`, in whichever thread it runs: the
context of the request must have been copied to the thread (`contextvars.copy_context`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .models.progress import OngoingWork
from .request_context import current_request_id

_report: ContextVar[Callable[[int, int], None] | None] = ContextVar("mao_progress", default=None)


def report_progress(done: int, total: int) -> None:
    """Report how much of the current work is done; does nothing outside `OngoingRequests.track`."""
    report = _report.get()
    if report is not None:
        report(done, total)


class OngoingRequests:
    """The long work of the requests that a service is answering."""

    def __init__(self) -> None:
        self._by_request: dict[str, list[OngoingWork]] = {}

    def of(self, request_id: str) -> list[OngoingWork]:
        """Return what a request waits for now."""
        return list(self._by_request.get(request_id, ()))

    @contextmanager
    def track(self, work: OngoingWork) -> Iterator[None]:
        """Within the block, `report_progress` counts for this work of the current request."""
        request_id = current_request_id()
        if request_id is None:
            yield
            return
        work = work.model_copy()  # changed in place, by one thread

        def report(done: int, total: int) -> None:
            work.done, work.total = done, total

        ongoing = self._by_request.setdefault(request_id, [])
        ongoing.append(work)
        token = _report.set(report)
        try:
            yield
        finally:
            _report.reset(token)
            ongoing[:] = [other for other in ongoing if other is not work]
            if not ongoing:
                self._by_request.pop(request_id, None)
