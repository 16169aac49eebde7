"""Container engines behind one protocol (protocol.py).

To add an engine, write a module here with a class that has the methods of `Driver`, and add it to ENGINES.
For further changes see services/runner/README.md, "Another engine".
"""

from collections.abc import Callable
from pkgutil import resolve_name

from .protocol import Driver

ENGINES = {  # MAO_ENGINE → the driver's class
    "docker": "mao_runner.drivers.docker:DockerDriver",
}


def ignore_call(operation: str, seconds: float) -> None:
    """Observe nothing."""


def open_driver(engine: str, timeout: int, observe: Callable[[str, float], None] = ignore_call) -> Driver:
    """Create the driver of an engine in ENGINES; only its module is imported.

    `timeout` is in seconds; `observe` is called with the driver's method and the seconds of each call.
    """
    driver: Driver = resolve_name(ENGINES[engine])(timeout=timeout, observe=observe)
    return driver
