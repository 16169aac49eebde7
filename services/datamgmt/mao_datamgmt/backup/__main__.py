"""`python -m mao_datamgmt.backup take TARGET | restore FILE [--replace]`, with the node's settings.

On a native node `maoctl node backup` and `restore` call it through `mao_node`; under compose it is the
program of the services `backup` and `restore`. TARGET and FILE may be `-`: the standard output and input.
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
    """Run a subcommand and return its exit code: the same as maoctl's, and 2 for invalid settings."""
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
    paths = node_paths(settings)
    async with _store(settings) as store:
        if target == "-":
            if sys.stdout.isatty():
                raise InvalidInput(
                    "The standard output is a terminal; a backup is not text.",
                    code="stdout-is-a-terminal",
                    next="Add '> FILE'.",
                )
            backup = await write_to_stream(settings.node, store, paths, sys.stdout.buffer, os.environ)
        else:
            backup = await take_backup(settings.node, store, paths, Path(target), os.environ)
    where = "to the standard output" if backup.path is None else f"as {backup.path} ({backup.size} bytes)"
    content = f"the store at revision {backup.header.revision}, datasets: {len(backup.header.tips)}"
    sys.stderr.write(f"node {settings.node} backed up {where}: {content}.\n")
    permissions = " The shell created the file: run chmod 600 on it." if backup.path is None else ""
    sys.stderr.write(
        f"It contains the node's keys and secrets: keep it where nobody else can read it.{permissions}\n"
    )


async def _restore(settings: DataSettings, file: str, *, replace: bool) -> None:
    paths = node_paths(settings)
    async with _store(settings) as store:
        if file != "-":
            result = await restore_backup(settings, store, paths, Path(file), replace=replace)
        else:
            paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=paths.data, prefix=".new-") as copy:
                while piece := sys.stdin.buffer.read(1 << 20):
                    copy.write(piece)
                copy.flush()
                result = await restore_backup(settings, store, paths, Path(copy.name), replace=replace)
    backup = f"{result.header.node} restored from its backup of {result.header.taken_at:%Y-%m-%dT%H:%M:%SZ}"
    lines = [
        f"node {backup}: {result.files} files, {result.keys} keys.",
        *(f"The previous data is in {folder}; keep or remove it." for folder in result.aside),
        "Start the node: it searches its datasets for runs made after the backup.",
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
