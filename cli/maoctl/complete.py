"""Names offered when a shell completes a word; silent and quick, whatever the node does."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Annotated

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
nodes = names(lambda client: (node.name for node in client.nodes.list()))
jobs = names(lambda client: (job.id for job in client.jobs.list()))
runs = names(lambda client: (run.id for run in client.runs()))

ToolArgument = Annotated[str, typer.Argument(help="Name of the tool.", autocompletion=tools)]
DatasetArgument = Annotated[str, typer.Argument(help="Name of the dataset.", autocompletion=datasets)]
PipelineArgument = Annotated[str, typer.Argument(help="Name of the pipeline.", autocompletion=pipelines)]
NodeArgument = Annotated[str, typer.Argument(help="Name of the node.", autocompletion=nodes)]
JobArgument = Annotated[str, typer.Argument(help="Id of the job.", autocompletion=jobs)]
RunArgument = Annotated[
    str, typer.Argument(help="Id of the run, or its beginning or end.", autocompletion=runs)
]
AnyTool = Annotated[
    str | None, typer.Argument(help="Name; all without.", show_default=False, autocompletion=tools)
]
AnyDataset = Annotated[
    str | None, typer.Argument(help="Name; all without.", show_default=False, autocompletion=datasets)
]
AnyPipeline = Annotated[
    str | None, typer.Argument(help="Name; all without.", show_default=False, autocompletion=pipelines)
]
AnyNode = Annotated[
    str | None, typer.Argument(help="Name; all without.", show_default=False, autocompletion=nodes)
]
AnyJob = Annotated[
    str | None, typer.Argument(help="Id; all without.", show_default=False, autocompletion=jobs)
]
