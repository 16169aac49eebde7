"""`maoctl dataset push`, and the state of datasets that `get` and `show` tell."""

from __future__ import annotations

from typing import Any

import typer

from maoctl import records, views
from maoctl.arguments import DatasetArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import Format, say
from maoctl.session import CliSession, OutputOption, example, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the command to `maoctl dataset`."""
    app.command(epilog=example("maoctl dataset push data"))(push)
    app.command(epilog=example("maoctl dataset acknowledge data"))(acknowledge)


def push(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Push what waits for the dataset's remote, now; exit code 1 when it does not get through."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        status = session.client.push_dataset(segment(name))
    session.data(status, output, lambda: None)
    outbox = status["outbox"]
    if outbox["detail"]:
        said = f"dataset/{name}: {outbox['waiting']} waiting ({outbox['state']}): {outbox['detail']}"
        raise CommandError(ExitCode.FAILED, said, outbox["next"])
    say(f"dataset/{name} is in sync with its remote")


def acknowledge(context: typer.Context, name: DatasetArgument, output: OutputOption = None) -> None:
    """Say that you have seen a broken clone that was set aside, or that a branch at the remote went back.

    The clone stays where it is, what the branch had is kept in the clone; neither is told any more.
    """
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.datasets))):
        status = session.client.acknowledge_dataset(segment(name))
    session.data(status, output, lambda: None)
    say(f"dataset/{name}: acknowledged")


def tell_broken(status: dict[str, Any] | None) -> None:
    """Says beside the data what became of clones that were broken."""
    for each in (status or {}).get("broken_clones") or []:
        say(f"{each['detail']}\nnext: {each['next']}")


def get(session: CliSession, name: str | None, output: Format | None) -> None:
    """Shows one dataset or all, each with its state on this node."""
    if name is not None:
        one = _one(session, name)
        session.show_one(views.DATASET, one, output)
        tell_broken(one.get("status"))
        return
    here = _states(session)
    found = [each.model_dump(mode="json") for each in session.client.datasets.list()]
    session.show(views.DATASET, [{**each, "status": here.get(each["name"])} for each in found], output)
    for state in here.values():
        tell_broken(state)


def _one(session: CliSession, name: str) -> dict[str, Any]:
    from mao_shared.errors import Unavailable

    try:
        return with_status(session, name)
    except Unavailable as error:
        found = records.fetch(session.client.datasets, name).record.model_dump(mode="json")
        _not_known(error)
        return found


def _not_known(error: Exception) -> None:
    say(f"What waits to be pushed is not known: {error}")


def _states(session: CliSession) -> dict[str, dict[str, Any]]:
    """By name; none when the data manager is away, so that the registry's list is shown all the same."""
    from mao_shared.errors import Unavailable

    try:
        return {each["name"]: each for each in session.client.dataset_statuses()}
    except Unavailable as error:
        _not_known(error)
        return {}


def with_status(session: CliSession, name: str) -> dict[str, Any]:
    """The record, and its state on this node: none until a pipeline that uses it was enrolled in."""
    from mao_shared.errors import NotFound

    found = records.fetch(session.client.datasets, name).record.model_dump(mode="json")
    try:
        found["status"] = session.client.dataset_status(segment(name))
    except NotFound:
        found["status"] = None
    return found
