"""`maoctl dataset history`: what a value was in each commit, of a dataset or any repository."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maoctl.arguments import datasets, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import Format, say, write
from maoctl.session import CliSession, example, get_session
from maoctl.text import harmless_line, plain
from maoctl.tree import App
from maoctl.views import contents

if TYPE_CHECKING:
    from mao_shared.models.dataset import ValueVersion

CSV = "csv"
CSV_COLUMNS = ("time", "commit", "value", "changed", "state", "reason", "run", "round", "step", "tick", "key")
_NAMES = ("DATASET", "FILE", "KEY", "FIELD")


class HistoryFormat(StrEnum):
    """The formats of all lists, and CSV."""

    TABLE = "table"
    WIDE = "wide"
    CSV = "csv"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def add_to(app: App) -> None:
    """Add the command to `maoctl dataset`."""
    app.command(
        lists=True,
        times=True,
        watched=False,
        epilog=example(
            "maoctl dataset history data results.csv node-7 temp",
            "maoctl dataset history data results.csv a,b temp --branch ground-truth -o csv",
            "maoctl dataset history data summary.json /images/total value --since 7d",
            "maoctl dataset history --repo . results.csv node-7 temp --by host",
        ),
    )(history)


def history(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET FILE KEY FIELD",
            help="A field of the record with this key: a,b for two key columns; in a JSON document a path, "
            "and a member or 'value'.",
            autocompletion=datasets,
        ),
    ],
    branch: Annotated[
        str | None,
        typer.Option(
            help="Branch [default: this node's].", show_default=False, callback=strip_kind("branch")
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="COLUMN",
            help="Key column; may be repeated. [default: inferred]",
            show_default=False,
        ),
    ] = None,
    repo: Annotated[
        Path | None,
        typer.Option(
            "--repo",
            help="Use a git repository on this machine instead of a dataset; then FILE KEY FIELD.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Only the newest versions.", show_default=False),
    ] = None,
    output: Annotated[
        HistoryFormat | None,
        typer.Option("-o", "--output", help="table | wide | csv | json | yaml | name", show_default=False),
    ] = None,
) -> None:
    """Show what a value was in each commit that changed its file, newest first.

    CHANGED says whether the value differs from the one before. Merges are followed along the branch itself.
    """
    as_csv = output == HistoryFormat.CSV
    session = get_session(context, None if output is None or as_csv else Format(output))
    expected = _NAMES if repo is None else _NAMES[1:]
    if len(names) != len(expected):
        raise CommandError(
            ExitCode.USAGE,
            f"Expected {' '.join(expected)}, got {len(names)} of these {len(expected)}.",
            "Quote a key with blanks; an empty one is ''.",
        )
    file, key, field = names[-3:]
    period = {"since": session.listing.since, "until": session.listing.until}
    if repo is not None:
        from maoctl.voting import value_history

        found = value_history(
            repo, branch or "HEAD", file=file, key=key, field=field, by=tuple(by or ()), limit=limit, **period
        )
        _show(session, found, as_csv)
        return
    name = strip_kind("dataset")(names[0]) or ""
    calls = session.client.datasets
    with did_you_mean((name, calls)):
        found = calls.history(name, file, key, field, branch=branch, by=by or (), limit=limit, **period)
        _show(session, found, as_csv)


def _show(session: CliSession, found: Iterator[ValueVersion], as_csv: bool) -> None:
    if not as_csv:
        session.show(contents.VALUE_VERSION, found)
        return
    listing = session.listing
    versions: Iterable[ValueVersion] = found
    if listing.sort_by is not None:  # otherwise each row is written as soon as it is found
        versions = listing.select(contents.VALUE_VERSION, found, session.now, None)
    _write_csv(versions)


def _write_csv(versions: Iterable[ValueVersion]) -> None:
    """Write a heading and a row for each version; on a terminal without control characters."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    shown = harmless_line if sys.stdout.isatty() else str
    writer.writerow(CSV_COLUMNS)
    count = 0
    for version in versions:
        fields = {name: plain(getattr(version, name)) for name in CSV_COLUMNS}
        fields["reason"] = version.unknown or version.reason or ""
        writer.writerow(shown(text) for text in fields.values())
        write(line.getvalue())
        line.seek(0)
        line.truncate()
        count += 1
    write(line.getvalue())
    if not count:
        say("No version found.")
