"""`python -m mao_runner`: serves the runner with settings from the environment."""

import sys

from mao_shared.service import run_service

from .app import make_app
from .settings import RunnerSettings

if __name__ == "__main__":
    sys.exit(run_service("runner", RunnerSettings, make_app))
