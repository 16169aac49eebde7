"""`python -m mao_node`: runs a node in the foreground until Ctrl-C. With arguments: see backup.py."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys

from pydantic import ValidationError

from mao_shared.errors import EXIT_CODES, MaoError
from mao_shared.host.data_dir import check_restore_finished
from mao_shared.host.files import set_private_umask
from mao_shared.settings import WRONG_SETTINGS, wrong_settings

from .preflight import (
    check_ports,
    check_program,
    lock,
    make_socket_dir,
    note_etcd_version,
    remove_sockets,
    socket_dir,
    wait_until_free,
)
from .processes import federation_dir, node_processes
from .settings import NodeSettings
from .supervise import log_line, supervise, use_log_format

POLL_INTERVAL = 0.2  # seconds; only while the node starts
HINT_AFTER = 10.0  # seconds of starting after which the log gives a hint


async def run_node(settings: NodeSettings) -> int:
    """Run until SIGINT or SIGTERM; return the exit code. Raises MaoError if the node cannot start."""
    specs = node_processes(settings, os.environ)
    if not settings.etcd_endpoints:
        check_program(settings.etcd)
    folder = socket_dir(settings.data_dir)
    lock_descriptor = lock(settings.data_dir)
    try:
        check_restore_finished(settings.data_dir)
        note_etcd_version(settings.etcd, federation_dir(settings))
        check_ports(port for spec in specs for port in spec.ports)
        make_socket_dir(folder)
        await wait_until_free([path for spec in specs for path in spec.sockets])
        stop, reload = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # Not SIGHUP: that means that the terminal has closed, which ends a node in the foreground.
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reload.set)
        announcing = asyncio.create_task(announce_when_ready(settings))
        code = await supervise(specs, stop, reload)
        announcing.cancel()
        remove_sockets(folder, (path for spec in specs for path in spec.sockets))
        return code
    finally:
        os.close(lock_descriptor)


async def announce_when_ready(settings: NodeSettings) -> None:
    """Poll the gateway until it is ready, then log the addresses."""
    host, port = settings.gateway_host, settings.gateway_port
    if host == "0.0.0.0":  # noqa: S104
        host = "127.0.0.1"
    doctor = "maoctl doctor" if port == 8080 else f"MAO_GATEWAY_PORT={port} maoctl doctor"
    loop = asyncio.get_running_loop()
    hint_at = loop.time() + HINT_AFTER
    while not await _is_ready(host, port):
        await asyncio.sleep(POLL_INTERVAL)
        if loop.time() > hint_at:
            hint_at = math.inf
            log_line("node", f"{settings.node} is not ready yet; see what it waits for: {doctor}")
    address = f"http://{host}:{port}"
    log_line("node", f"{settings.node} is ready: dashboard {address}/  API pages {address}/docs")


async def _is_ready(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    return False


def main() -> int:
    """Run the node or a command; return the exit code.

    0 after a clean stop, 1 if the node could not start, 2 for invalid settings; commands use maoctl's codes.
    """
    arguments = sys.argv[1:]
    try:
        settings = NodeSettings()
        set_private_umask()
        settings.data_dir = settings.data_dir.resolve()
        use_log_format(settings.log_format)
        if not arguments:
            return asyncio.run(run_node(settings))
        from .backup import COMMANDS, run_backup

        if arguments[0] not in COMMANDS:
            print(f"usage: python -m mao_node [{' | '.join(COMMANDS)} FILE]", file=sys.stderr)
            return WRONG_SETTINGS
        return asyncio.run(run_backup(settings, arguments))
    except ValidationError as error:
        print(wrong_settings(error), end="", file=sys.stderr)
        return WRONG_SETTINGS
    except MaoError as error:
        print(f"{error.detail}\n  next: {error.next}", file=sys.stderr)
        return EXIT_CODES.get(error.status, 1) if arguments else 1


if __name__ == "__main__":
    sys.exit(main())
