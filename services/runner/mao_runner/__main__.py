"""`python -m mao_runner`: serves the runner with settings from the environment.

`python -m mao_runner --remove-tool-network` removes the tools' network and its firewall rules.
"""

import asyncio
import sys

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.service.app import run_service

from .app import make_app
from .containers.network import ToolNetwork
from .drivers import open_driver
from .settings import RunnerSettings


async def remove_tool_network() -> str | None:
    """Remove the tools' network; return None, or why that failed and what to do."""
    settings = RunnerSettings()
    driver = open_driver(settings.engine, settings.engine_timeout)
    try:
        network = ToolNetwork(
            driver, Conditions(), name=settings.tool_network_name, isolated=True, installation="removal"
        )
        await network.remove()
    except MaoError as error:
        return f"{error.detail}\n  next: {error.next}\n"
    finally:
        await driver.close()
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--remove-tool-network"]:
        sys.exit(asyncio.run(remove_tool_network()))
    sys.exit(run_service("runner", RunnerSettings, make_app))
