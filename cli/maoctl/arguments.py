"""Names offered when a shell completes a word; silent and quick, whatever the node does."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mao_shared.clients.gateway import MaoClient

TIME_LIMIT = 1.0  # seconds; a shell that hangs at TAB is worse than one that offers nothing
MOST = 100


def names(list_names: Callable[[MaoClient], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """A completer that offers the names which begin with what is typed."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from mao_shared.errors import MaoError

        from .config import load_config
        from .connect import connect
        from .exits import Stop

        try:
            config = load_config(os.environ, context.find_root().params.get("url"))
            with connect(config, timeout=TIME_LIMIT, attempts=1) as client:
                return [name for name in islice(list_names(client), MOST) if name.startswith(incomplete)]
        except (MaoError, Stop, ValueError):
            return []

    return complete


tools = names(lambda client: (tool.name for tool in client.tools.list()))
datasets = names(lambda client: (dataset.name for dataset in client.datasets.list()))
pipelines = names(lambda client: (pipeline.name for pipeline in client.pipelines.list()))
nodes = names(lambda client: (node.name for node in client.node_states()))
jobs = names(lambda client: (job.id for job in client.jobs.list()))
runs = names(lambda client: (run.id for run in client.runs()))


def bare(kind: str) -> Callable[[str | None], str | None]:
    """Takes `run/ID` for `ID`: what `-o name` and messages print can be typed again as it is."""
    return lambda typed: typed.removeprefix(f"{kind}/") if typed else typed


def _one(kind: str, words: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(help=words, autocompletion=completer, callback=bare(kind))


def _any(kind: str, words: str, completer: Callable[[typer.Context, str], list[str]]) -> Any:
    return typer.Argument(help=words, autocompletion=completer, callback=bare(kind), show_default=False)


ToolArgument = Annotated[str, _one("tool", "Name of the tool.", tools)]
DatasetArgument = Annotated[str, _one("dataset", "Name of the dataset.", datasets)]
PipelineArgument = Annotated[str, _one("pipeline", "Name of the pipeline.", pipelines)]
NodeArgument = Annotated[str, _one("node", "Name of the node.", nodes)]
JobArgument = Annotated[str, _one("job", "Id of the job.", jobs)]
RunArgument = Annotated[str, _one("run", "Id of the run, or its beginning or end.", runs)]
AnyTool = Annotated[str | None, _any("tool", "Name; all without.", tools)]
AnyDataset = Annotated[str | None, _any("dataset", "Name; all without.", datasets)]
NamedDataset = Annotated[str | None, _any("dataset", "Name of the dataset.", datasets)]
AnyPipeline = Annotated[str | None, _any("pipeline", "Name; all without.", pipelines)]
AnyNode = Annotated[str | None, _any("node", "Name; all without.", nodes)]
AnyJob = Annotated[str | None, _any("job", "Id; all without.", jobs)]
AnyRun = Annotated[str | None, _any("run", "Id; the newest runs without.", runs)]
