"""One httpx client a service, and `gateway.MaoClient` for maoctl."""

from .base import ServiceClient
from .datamgmt import DataClient
from .registry import RegistryClient
from .runner import EngineInfo, RunnerClient
from .scheduler import SchedulerClient

__all__ = ["DataClient", "EngineInfo", "RegistryClient", "RunnerClient", "SchedulerClient", "ServiceClient"]
