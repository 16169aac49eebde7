"""`python -m mao_runner`: serves the runner in the foreground."""

from __future__ import annotations

from mao_shared.service import serve
from mao_shared.settings import load_settings

from .app import make_app
from .settings import RunnerSettings

if __name__ == "__main__":
    settings = load_settings(RunnerSettings)
    serve(make_app(settings), "runner", settings)
