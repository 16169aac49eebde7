"""`python -m mao_scheduler`: serves the scheduler with settings from the environment."""

from __future__ import annotations

from mao_shared.service import serve
from mao_shared.settings import load_settings

from .app import make_app
from .settings import SchedulerSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = load_settings(SchedulerSettings)
    serve(make_app(settings), "scheduler", settings)


if __name__ == "__main__":
    main()
