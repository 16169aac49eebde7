"""`python -m mao_registry`: serves the registry with settings from the environment."""

import sys

from mao_shared.service.app import run_service

from .app import make_app
from .settings import RegistrySettings

if __name__ == "__main__":
    sys.exit(run_service("registry", RegistrySettings, make_app))
