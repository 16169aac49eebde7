"""`python -m mao_datamgmt.backup take TARGET | restore FILE [--replace]`, with the node's settings.

Natively `maoctl node backup` and `restore` call it through `mao_node`; under compose it is the program of the
services `backup` and `restore`. TARGET and FILE may be `-`: the standard output and input.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from mao_datamgmt.settings import DataSettings
from mao_shared.errors import EXIT_CODES, InvalidInput, MaoError
from mao_shared.host.files import set_private_umask
from mao_shared.logs import configure_logs
from mao_shared.settings import WRONG_SETTINGS, wrong_settings
from mao_shared.store import Store, open_store

from .collect import node_paths
from .restore import restore_backup
from .take import folder_missing, take_backup, write_to_stream


def main() -> int:
    """Run a subcommand and return its exit code: as maoctl's, 2 also for invalid settings."""
    parser = argparse.ArgumentParser(prog="python -m mao_datamgmt.backup", description="A node's backup.")
    commands = parser.add_subparsers(dest="command", required=True)
    take = commands.add_parser("take", help="back the node up")
    take.add_argument("target", help="a new file, a folder, or - for the standard output")
    restore = commands.add_parser("restore", help="restore a backup into a stopped node")
    restore.add_argument("file", help="the backup, or - for the standard input")
    restore.add_argument("--replace", action="store_true", help="set aside the existing data")
    arguments = parser.parse_args()
    try:
        settings = DataSettings()
        set_private_umask()
        configure_logs("backup", settings.log_level, settings.log_format)
        if arguments.command == "take":
            if arguments.target.endswith("/") and not os.path.lexists(arguments.target):
                raise folder_missing(Path(arguments.target))  # a Path drops the slash
            asyncio.run(_take(settings, arguments.target))
        else:
            asyncio.run(_restore(settings, arguments.file, replace=arguments.replace))
    except ValidationError as error:
        sys.stderr.write(wrong_settings(error))
        return WRONG_SETTINGS
    except MaoError as error:
        sys.stderr.write(f"{error.detail}\n")
        if error.next:
            sys.stderr.write(f"  next: {error.next}\n")
        return EXIT_CODES.get(error.status, 1)
    return 0


async def _take(settings: DataSettings, target: str) -> None:
    places = node_paths(settings)
    async with _store(settings) as store:
        if target == "-":
            if sys.stdout.isatty():
                raise InvalidInput(
                    "The standard output is a terminal; a backup is not text.",
                    code="stdout-is-a-terminal",
                    next="Add '> FILE'.",
                )
            taken = await write_to_stream(settings.node, store, places, sys.stdout.buffer, os.environ)
        else:
            taken = await take_backup(settings.node, store, places, Path(target), os.environ)
    where = "to the standard output" if taken.path is None else f"as {taken.path} ({taken.size} bytes)"
    content = f"the store at revision {taken.header.revision}, datasets: {len(taken.header.tips)}"
    sys.stderr.write(f"node {settings.node} backed up {where}: {content}.\n")
    by_shell = " Your shell has made its file: chmod 600." if taken.path is None else ""
    sys.stderr.write(
        f"It holds the node's keys and secrets: keep it where nobody else can read it.{by_shell}\n"
    )


async def _restore(settings: DataSettings, file: str, *, replace: bool) -> None:
    places = node_paths(settings)
    async with _store(settings) as store:
        if file != "-":
            done = await restore_backup(settings, store, places, Path(file), replace=replace)
        else:
            places.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=places.data, prefix=".new-") as copy:
                while piece := sys.stdin.buffer.read(1 << 20):
                    copy.write(piece)
                copy.flush()
                done = await restore_backup(settings, store, places, Path(copy.name), replace=replace)
    at = f"{done.header.taken_at:%Y-%m-%dT%H:%M:%SZ}"
    lines = [
        f"node {done.header.node} restored from its backup of {at}: {done.files} files, {done.keys} keys.",
        *(f"What was there before is in {folder}; keep it or remove it." for folder in done.aside),
        "Start the node: it looks up in its datasets what was run after the backup.",
    ]
    sys.stderr.write("\n".join(lines) + "\n")


@asynccontextmanager
async def _store(settings: DataSettings) -> AsyncIterator[Store]:
    store = open_store(settings.etcd_endpoints, deadline=30.0)
    try:
        yield store
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
