"""One httpx client a service, and `gateway.MaoClient` for maoctl."""

from mao_shared.logs import blocked_imports

with blocked_imports("rich", "pygments"):
    import httpx  # noqa: F401 (the first import decides what comes along)

from .services import DataClient, EngineInfo, RegistryClient, RunnerClient, SchedulerClient, ServiceClient

__all__ = ["DataClient", "EngineInfo", "RegistryClient", "RunnerClient", "SchedulerClient", "ServiceClient"]
