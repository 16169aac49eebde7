"""Container engines behind one protocol (protocol.py).

To add an engine, write a module here with a class that has the methods of `Driver`, and add it to ENGINES.
What else to change: services/runner/README.md, "Another engine".
"""

from pkgutil import resolve_name

from .protocol import Driver

ENGINES = {  # MAO_ENGINE → the class, which is called with the seconds that one call may take
    "docker": "mao_runner.drivers.docker:DockerDriver",
}


def open_driver(engine: str, timeout: int) -> Driver:
    """The driver of an engine in ENGINES; only its module is imported."""
    driver: Driver = resolve_name(ENGINES[engine])(timeout=timeout)
    return driver
