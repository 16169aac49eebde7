"""Tables of registered records: tools, datasets, pipelines; alarms, series and webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maoctl.output import Column, Document, TableView, to_document
from maoctl.text import one_line, relative, size

if TYPE_CHECKING:
    from mao_shared import models
    from mao_shared.models.dataset import DatasetStatus

TOOL: TableView[models.Tool] = TableView(
    "tool",
    [
        Column("NAME", lambda tool, _: tool.name, keep_whole=True),
        Column("IMAGE", lambda tool, _: tool.image),
        Column("AUTHOR", lambda tool, _: tool.author, spare=1),
        Column("DESCRIPTION", lambda tool, _: tool.description),
        Column("COMMAND", lambda tool, _: tool.command, wide=True),
        Column("NETWORK", lambda tool, _: tool.network, wide=True),
        Column(
            "MEMORY",
            lambda tool, _: size(tool.limits.memory),
            wide=True,
            sort=lambda tool: tool.limits.memory,
        ),
        Column("DATA REPO", lambda tool, _: tool.data_repo, wide=True),
        Column("CODE REPO", lambda tool, _: tool.code_repo, wide=True),
        Column("ARTEFACT", lambda tool, _: tool.artefact, wide=True),
    ],
    lambda tool: tool.name,
)


DATASET: TableView[models.Dataset] = TableView(
    "dataset",
    [
        Column("NAME", lambda dataset, _: dataset.name, keep_whole=True),
        Column("MASTER", lambda dataset, _: dataset.master),
        Column("NODES", lambda dataset, _: dataset.nodes),
    ],
    lambda dataset: dataset.name,
)


@dataclass(frozen=True)
class NodeDataset:
    """A dataset with its status on this node: None if it has no clone here, or if that is not `known`."""

    record: models.Dataset
    status: DatasetStatus | None
    known: bool = True

    def document(self) -> Document:
        status = None if self.status is None else to_document(self.status)
        return to_document(self.record) | ({"status": status} if self.known else {})


NODE_DATASET: TableView[NodeDataset] = TableView(
    "dataset",
    [
        Column("NAME", lambda dataset, _: dataset.record.name, keep_whole=True),
        Column("MASTER", lambda dataset, _: dataset.record.master),
        Column("NODES", lambda dataset, _: dataset.record.nodes),
        Column("UNPUSHED", lambda dataset, _: dataset.status and dataset.status.outbox.waiting),
        Column("REASON", lambda dataset, _: dataset.status and dataset.status.outbox.detail),
        Column(
            "LFS ABOVE",
            lambda dataset, _: size(dataset.record.lfs_above),
            wide=True,
            sort=lambda dataset: dataset.record.lfs_above,
        ),
        Column("EXTERNAL", lambda dataset, _: dataset.record.external, wide=True),
        Column("DESCRIPTION", lambda dataset, _: dataset.record.description, wide=True),
    ],
    lambda dataset: dataset.record.name,
)


def _state(pipeline: models.Pipeline) -> models.PipelineState | None:
    """Return the pipeline with this node's enrolment, if that is known."""
    from mao_shared.models import PipelineState  # not needed by --help

    return pipeline if isinstance(pipeline, PipelineState) else None


PIPELINE: TableView[models.Pipeline] = TableView(
    "pipeline",
    [
        Column("NAME", lambda pipeline, _: pipeline.name, keep_whole=True),
        Column("TOOLS", lambda pipeline, _: [step.tool for step in pipeline.steps]),
        Column("DATASETS", lambda pipeline, _: [step.dataset for step in pipeline.steps]),
        Column(
            "ENROLLED",
            lambda pipeline, _: (
                (state := _state(pipeline)) and ("change pending" if state.outdated else state.enrolled)
            ),
        ),
        Column("PENDING", lambda pipeline, _: (state := _state(pipeline)) and state.pending, wide=True),
        Column("OVERLAP", lambda pipeline, _: pipeline.overlap, wide=True),
        Column("TITLE", lambda pipeline, _: pipeline.title, wide=True),
        Column("DESCRIPTION", lambda pipeline, _: pipeline.description, wide=True),
    ],
    lambda pipeline: pipeline.name,
)
ENROLMENT: TableView[models.Enrolment] = TableView(
    "enrolment",
    [Column("PIPELINE", lambda enrolment, _: enrolment.pipeline)],
    lambda enrolment: enrolment.pipeline,
)
ALARM: TableView[models.Alarm] = TableView(
    "alarm",
    [
        Column("ID", lambda alarm, _: alarm.id, keep_whole=True),
        Column("KIND", lambda alarm, _: alarm.kind),
        Column(
            "AGE",
            lambda alarm, now: relative(alarm.raised_at, now),
            keep_whole=True,
            sort=lambda alarm: alarm.raised_at,
        ),
        Column(
            "ENDED",
            lambda alarm, now: relative(alarm.over, now),
            keep_whole=True,
            sort=lambda alarm: alarm.over,
            spare=1,
        ),
        Column("ACKNOWLEDGED BY", lambda alarm, _: alarm.acknowledged and alarm.acknowledged.by, spare=2),
        Column("DETAIL", lambda alarm, _: one_line(alarm.detail)),
    ],
    lambda alarm: alarm.id,
    lambda alarm: alarm.raised_at,
)
SERIES: TableView[models.Series] = TableView(
    "series",
    [
        Column("PIPELINE", lambda series, _: series.pipeline),
        Column("STEP", lambda series, _: series.step),
        Column("METRIC", lambda series, _: series.metric, keep_whole=True),
        Column("LATEST", lambda series, _: [point.value for point in series.points[-1:]], keep_whole=True),
        Column("UNIT", lambda series, _: series.unit),
        Column("RUN", lambda series, _: [point.run for point in series.points[-1:]], wide=True),
    ],
    lambda series: f"{series.pipeline}/{series.step}/{series.metric}",
    lambda series: series.points[-1].time if series.points else None,
)
POINT: TableView[models.Point] = TableView(
    "point",
    [
        Column("TIME", lambda point, _: point.time, keep_whole=True),
        Column("VALUE", lambda point, _: point.value, keep_whole=True),
        Column("EXPECTED", lambda point, _: point.expected),
        Column("BAND", lambda point, _: point.band),
        Column("ACCEPTED", lambda point, _: point.accepted),
        Column("RUN", lambda point, _: point.run, keep_whole=True, spare=1),
    ],
    lambda point: point.run,
    lambda point: point.time,
)
WEBHOOK: TableView[models.WebhookState] = TableView(
    "webhook",
    [
        Column("NAME", lambda webhook, _: webhook.name, keep_whole=True),
        Column("URL", lambda webhook, _: webhook.url),
        Column("PENDING", lambda webhook, _: webhook.waiting),
        Column("FAILED", lambda webhook, _: webhook.given_up),
        Column("LAST ERROR", lambda webhook, _: webhook.last_error),
    ],
    lambda webhook: webhook.name,
)
