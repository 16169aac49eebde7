"""One httpx client a service, and `gateway.MaoClient` for maoctl."""

from mao_shared.lean import without

with without("rich", "pygments"):
    import httpx  # noqa: F401 (the first import decides what comes along)

from .datamgmt import DataClient
from .registry import RegistryClient
from .runner import EngineInfo, RunnerClient
from .scheduler import SchedulerClient
from .services import ServiceClient

__all__ = ["DataClient", "EngineInfo", "RegistryClient", "RunnerClient", "SchedulerClient", "ServiceClient"]
