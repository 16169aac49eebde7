"""`python -m mao_node`: a node in the foreground; Ctrl-C stops all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from pydantic import ValidationError

from mao_shared.errors import MaoError
from mao_shared.private import private_umask
from mao_shared.settings import WRONG_SETTINGS, wrong_settings

from .preflight import check_ports, check_program, lock, note_etcd_version
from .processes import federation_dir, node_processes
from .ready import announce_when_ready
from .settings import NodeSettings
from .sockets import make_private, remove, socket_dir, until_silent
from .supervise import supervise


async def run_node(settings: NodeSettings) -> int:
    """Runs until SIGINT or SIGTERM; the exit code. Raises MaoError when the node cannot start here."""
    specs = node_processes(settings, os.environ)
    if not settings.etcd_endpoints:
        check_program(settings.etcd)
    folder = socket_dir(settings.data_dir)
    held = lock(settings.data_dir)
    try:
        note_etcd_version(settings.etcd, federation_dir(settings))
        check_ports(port for spec in specs for port in spec.ports)
        make_private(folder)
        await until_silent([path for spec in specs for path in spec.sockets])
        stop, told = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # Not SIGHUP: that says that the terminal is gone, and a node in the foreground goes with it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
        announcing = asyncio.create_task(announce_when_ready(settings))
        code = await supervise(specs, stop, told)
        announcing.cancel()
        remove(folder, (path for spec in specs for path in spec.sockets))
        return code
    finally:
        os.close(held)


def main() -> int:
    """Exit code 0 after a clean stop, 1 when the node could not start, 2 for wrong settings."""
    try:
        settings = NodeSettings()
        private_umask()
        settings.data_dir = settings.data_dir.resolve()
        return asyncio.run(run_node(settings))
    except ValidationError as error:
        print(wrong_settings(error), end="", file=sys.stderr)
        return WRONG_SETTINGS
    except MaoError as error:
        print(f"{error.detail}\n  next: {error.next}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
