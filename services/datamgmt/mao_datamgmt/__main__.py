"""`python -m mao_datamgmt`: serves the data manager with settings from the environment."""

from mao_shared.service import serve
from mao_shared.settings import load_settings

from .app import make_app
from .settings import DataSettings

if __name__ == "__main__":
    settings = load_settings(DataSettings)
    serve(make_app(settings), "datamgmt", settings)
