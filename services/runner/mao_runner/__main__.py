"""`python -m mao_runner`: serves the runner with settings from the environment.

`python -m mao_runner --remove-tool-network` takes the tools' network and its rules in the firewall away.
"""

import asyncio
import sys

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.service.app import run_service

from .app import make_app
from .containers.network import ToolNetwork
from .drivers.docker import DockerDriver
from .settings import RunnerSettings


async def remove_tool_network() -> str | None:
    """Why it could not be done, and what to do; None when it is gone."""
    name = RunnerSettings().tool_network_name
    driver = DockerDriver()
    try:
        await ToolNetwork(driver, Conditions(), name=name, shut_off=True, installation="removal").remove()
    except MaoError as error:
        return f"{error.detail}\n  next: {error.next}\n"
    finally:
        await driver.close()
    return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--remove-tool-network"]:
        sys.exit(asyncio.run(remove_tool_network()))
    sys.exit(run_service("runner", RunnerSettings, make_app))
