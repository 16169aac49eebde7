"""Settings of the scheduler."""

from __future__ import annotations

from pydantic import Field

from mao_shared.models.common import Seconds
from mao_shared.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Read from the environment: `MAO_KEEP_RUNS` and so on."""

    port: int = 8082
    keep_runs: int = Field(default=10_000, ge=1)  # ended runs kept a pipeline; missed ones are counted apart
    keep_days: float = Field(default=400, gt=0)  # days that an ended run is kept
    settle_after: Seconds = 600  # after its end a run with nothing left to be written down becomes history
    stuck_after: Seconds = Field(default=900, gt=0)  # beyond what explains a step's wait: it is stuck
    retention_interval: float = Field(default=600, gt=0)  # seconds between two looks at what may go
