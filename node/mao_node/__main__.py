"""`python -m mao_node`: a node in the foreground; Ctrl-C stops all of it. With words: see backup.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from pydantic import ValidationError

from mao_shared.errors import EXIT_CODES, MaoError
from mao_shared.private import private_umask
from mao_shared.settings import WRONG_SETTINGS, wrong_settings
from mao_shared.workspace import refuse_half_restored

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
        refuse_half_restored(settings.data_dir)
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


def _run_command(settings: NodeSettings, words: list[str]) -> int:
    from .backup import COMMANDS, run_backup

    if words[0] not in COMMANDS:
        print(f"python -m mao_node [{' | '.join(COMMANDS)} FILE]: not {words[0]!r}", file=sys.stderr)
        return WRONG_SETTINGS
    return asyncio.run(run_backup(settings, words))


def main() -> int:
    """Exit code 0 after a clean stop, 1 when the node could not start, 2 for wrong settings; of commands
    as maoctl's.
    """
    try:
        settings = NodeSettings()
        private_umask()
        settings.data_dir = settings.data_dir.resolve()
        if words := sys.argv[1:]:
            return _run_command(settings, words)
        return asyncio.run(run_node(settings))
    except ValidationError as error:
        print(wrong_settings(error), end="", file=sys.stderr)
        return WRONG_SETTINGS
    except MaoError as error:
        print(f"{error.detail}\n  next: {error.next}", file=sys.stderr)
        return EXIT_CODES.get(error.status, 1) if sys.argv[1:] else 1


if __name__ == "__main__":
    sys.exit(main())
