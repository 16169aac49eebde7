"""Settings of the scheduler."""

from __future__ import annotations

from pydantic import Field

from mao_shared.models.common import Seconds
from mao_shared.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Settings, read from environment variables such as `MAO_KEEP_RUNS`."""

    port: int = 8082
    keep_runs: int = Field(default=10_000, ge=1)  # ended runs per pipeline, and as many missed ones
    keep_days: float = Field(default=400, gt=0)  # days for which an ended run is kept
    settle_after: Seconds = 600  # after its end, before a settled run becomes history
    stuck_after: Seconds = Field(default=900, gt=0)  # beyond the expected time, until a step is reported
    late_after: Seconds = Field(default=300, gt=0)  # after its tick, until a run without a tool is reported
    retention_interval: float = Field(default=600, gt=0)  # seconds between two passes
