"""`python -m mao_registry`: serves the registry with settings from the environment."""

from mao_shared.service import serve
from mao_shared.settings import load_settings

from .app import make_app
from .settings import RegistrySettings

if __name__ == "__main__":
    settings = load_settings(RegistrySettings)
    serve(make_app(settings), "registry", settings)
