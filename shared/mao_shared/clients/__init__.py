"""The clients of the services, one each, and of a node's public API for maoctl and scripts."""

from mao_shared.logs import blocked_imports

with blocked_imports("rich", "pygments"):
    import httpx  # noqa: F401 (the first import decides what comes along)

from .services import DataClient, RunnerClient, SchedulerClient, ServiceClient

__all__ = ["DataClient", "RunnerClient", "SchedulerClient", "ServiceClient"]
