"""`python -m mao_scheduler`: serves the scheduler with settings from the environment."""

import sys

from mao_shared.service.app import run_service

from .app import make_app
from .settings import SchedulerSettings

if __name__ == "__main__":
    sys.exit(run_service("scheduler", SchedulerSettings, make_app))
