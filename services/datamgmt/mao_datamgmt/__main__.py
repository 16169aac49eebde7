"""`python -m mao_datamgmt`: serve the data manager, with settings from the environment."""

import sys

from mao_shared.service.app import run_service

from .app import make_app
from .settings import DataSettings

if __name__ == "__main__":
    sys.exit(run_service("datamgmt", DataSettings, make_app))
