"""HTTP clients: one for each service, and one for a node's public API (maoctl, scripts)."""

from mao_shared.logs import blocked_imports

with blocked_imports("rich", "pygments"):
    import httpx  # noqa: F401 (the first import decides what is loaded with it)

from .services import DataClient, RunnerClient, SchedulerClient, ServiceClient

__all__ = ["DataClient", "RunnerClient", "SchedulerClient", "ServiceClient"]
