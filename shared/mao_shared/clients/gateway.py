"""The client of a node's public API, for maoctl and scripts; synchronous."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Self

import httpx

from mao_shared import models
from mao_shared.models.node import NodeStatus
from mao_shared.models.run import Verification
from mao_shared.models.tool import CheckReport

from .gateway_data import BinaryWriter, DatasetCalls, ExternalDataCalls, RoundCalls
from .gateway_federation import AlarmCalls, FederationCalls, NodeCalls, WebhookCalls
from .gateway_http import GatewayHttp, Resource, StalenessCallback, compact, url_path
from .responses import ServerEvent, check, read_events, read_json
from .services import PULL_TIMEOUT

Json = dict[str, Any]
SILENCE = 60.0  # seconds; streams send a keep-alive every 15
READ_TIMEOUT = 900.0  # seconds; every byte of a run is read before the first one of the answer comes


class MaoClient:
    """All public calls of a node, by noun. Names are quoted here, so that any text can be passed.

    Errors are the exceptions of `errors.py`; PeerUnavailable when the node does not answer.

    Args:
        url: of the gateway.
        token: sent as a bearer token; the node itself needs none.
        timeout: seconds that an answer may take.
        attempts: how often a repeatable call is tried while the node does not answer.
        transport: for tests.
        on_stale: called with each answer that rests on copies, since the federation does not answer: with the
            moment at which they were true, and the federation's name if it has removed the node (else ``).
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30,
        attempts: int = 3,
        transport: httpx.BaseTransport | None = None,
        on_stale: StalenessCallback | None = None,
    ) -> None:
        self.http = http = GatewayHttp(
            url, token=token, timeout=timeout, attempts=attempts, transport=transport, on_stale=on_stale
        )
        self.tools = ToolCalls(http, "/registry/tools", models.Tool)
        self.datasets = DatasetCalls(http)
        self.pipelines = PipelineCalls(http, "/registry/pipelines", models.Pipeline)
        self.enrolments = EnrolmentCalls(http, "/enrolments", models.Enrolment)
        self.jobs = JobCalls(http, "/jobs", models.Job)
        self.runs = RunCalls(http)
        self.rounds = RoundCalls(http)
        self.external = ExternalDataCalls(http)
        self.nodes = NodeCalls(http)
        self.federation = FederationCalls(http)
        self.alarms = AlarmCalls(http)
        self.webhooks = WebhookCalls(http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def status(self) -> NodeStatus:
        """Readiness of every service and store, versions, next steps."""
        return self.http.get("/status", NodeStatus)

    def accept_store(self) -> None:
        """Accepts the node's etcd as it is now, despite lost data."""
        self.http.execute("POST", "/store/accept")

    def events(self, after: str | None = None) -> Iterator[ServerEvent]:
        """Changes of all runs of the node, for ever or until the stream breaks off."""
        return open_events(self.http, "/events", {}, after)


class ToolCalls(Resource[models.Tool]):
    """Container images that are registered, or may be."""

    def check(self, image: str, **fields: Any) -> CheckReport:
        """A report of the image's compliance; `fields`: command, env, input, timeout."""
        body = compact({"image": image, **fields})
        return self.http.call("POST", "/tools/check", CheckReport, json=body, timeout=PULL_TIMEOUT)


class PipelineCalls(Resource[models.Pipeline]):
    """Registered pipelines, and this node's part in them."""

    def states(self) -> Iterator[models.PipelineState]:
        """The pipelines with the state of this node's enrolment."""
        return self.http.pages("/pipeline", models.PipelineState)

    def init(self, body: models.PipelineInit) -> models.Pipeline:
        """Registers the pipeline and enrols this node; pulls its images first."""
        document = body.model_dump(mode="json", exclude_defaults=True)
        return self.http.call("POST", "/pipeline/init", models.Pipeline, json=document, timeout=PULL_TIMEOUT)

    def diff(self, name: str) -> models.PipelineDiff:
        """What runs on the node against what is registered."""
        return self.http.get(url_path("pipeline", name, "diff"), models.PipelineDiff)

    def approve(self, name: str, definition: str, agree: list[str]) -> models.Enrolment:
        """Approves what was shown as `definition`; PreconditionFailed when it is another by now."""
        path, body = url_path("pipeline", name, "approve"), {"definition": definition, "agree": agree}
        return self.http.call("POST", path, models.Enrolment, json=body, timeout=PULL_TIMEOUT)

    def schedule(self, name: str, cron: str, **fields: Any) -> models.Schedule:
        """Schedules the pipeline; `fields` are those of ScheduleSpec, None left out."""
        body = compact({"name": name, "cron": cron, **fields})
        return self.http.call("POST", "/pipeline/run", models.Schedule, json=body)

    def run(
        self, name: str, *, scheduled_for: datetime | None = None, idempotency_key: str | None = None
    ) -> models.Run:
        """Runs the pipeline once, now."""
        body = compact({"name": name, "scheduled_for": scheduled_for and models.format_time(scheduled_for)})
        headers = compact({"Idempotency-Key": idempotency_key})
        return self.http.call("POST", "/pipeline/run", models.Run, json=body, headers=headers)


class EnrolmentCalls(Resource[models.Enrolment]):
    """The pipelines that this node takes part in."""

    def enrol(self, pipeline: str, agree: list[str]) -> models.Enrolment:
        """Enrols this node in a registered pipeline, or renews the enrolment."""
        options: Json = {"json": {"agree": agree}, "timeout": PULL_TIMEOUT}
        return self.http.call("PUT", self.at(pipeline), models.Enrolment, **options)


class JobCalls(Resource[models.Job]):
    """The schedules of this node."""

    def pause(self, job: str) -> models.Job:
        return self.http.call("POST", self.at(job, "pause"), models.Job)

    def resume(self, job: str) -> models.Job:
        return self.http.call("POST", self.at(job, "resume"), models.Job)

    def backfill(self, job: str, since: datetime, until: datetime) -> models.BackfillResult:
        """Runs the ticks in [since, until] that were missed."""
        body = {"since": models.format_time(since), "until": models.format_time(until)}
        return self.http.call("POST", self.at(job, "backfill"), models.BackfillResult, json=body)

    def next_times(self, job: str, count: int = 5) -> models.NextTimes:
        return self.http.get(self.at(job, "next"), models.NextTimes, {"count": count})

    def preview(self, cron: str, **fields: Any) -> models.NextTimes:
        """The next times of a cron string; `fields`: timezone, seconds, count."""
        return self.http.call(
            "POST", "/cron/preview", models.NextTimes, json=compact({"cron": cron, **fields})
        )


class RunCalls:
    """Executions of pipelines on this node, with their logs and evidence."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def list(
        self,
        *,
        pipeline: str | None = None,
        phase: str | None = None,
        schedule: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[models.Run]:
        """Newest first, page by page as far as the caller reads. `schedule`: also runs that it shares.

        `since`, `until`: by a run's tick, or when it was asked for.
        """
        params: Json = {"pipeline": pipeline, "phase": phase, "schedule": schedule, "trigger": trigger}
        params |= {"since": since and models.format_time(since), "until": until and models.format_time(until)}
        return self.http.pages("/runs", models.Run, params)

    def get(self, run_id: str) -> models.Run:
        return self.http.get(url_path("runs", run_id), models.Run)

    def cancel(self, run_id: str, reason: str = "") -> models.Run:
        return self.http.call("POST", url_path("runs", run_id, "cancel"), models.Run, json={"reason": reason})

    def retry(self, run_id: str) -> models.Run:
        """A new run of the same pipeline that refers to this one."""
        return self.http.call("POST", url_path("runs", run_id, "retry"), models.Run)

    def reproduce(self, run_id: str, step: str | None = None) -> models.Run:
        """A run that repeats a step (needed where there are several) and compares instead of publishing."""
        path = url_path("runs", run_id, "reproduce")
        return self.http.call("POST", path, models.Run, json=compact({"step": step}))

    def events(self, run_id: str, after: str | None = None) -> Iterator[ServerEvent]:
        """The run's document at every change, until it ends or the stream breaks off."""
        return open_events(self.http, url_path("runs", run_id, "events"), {}, after)

    def log(self, run_id: str, *, step: int | None = None, attempt: int | None = None) -> str:
        """What the step's container has written so far."""
        params = compact({"step": step, "attempt": attempt})
        response = self.http.send("GET", url_path("runs", run_id, "logs"), params=params)
        check(response)
        return response.text

    def follow_log(
        self, run_id: str, *, step: int | None = None, attempt: int | None = None, after: str | None = None
    ) -> Iterator[ServerEvent]:
        """Pieces of the log as they are written, to the container's end; `text` of each by `log_text`."""
        params = compact({"step": step, "attempt": attempt, "follow": "true"})
        return open_events(self.http, url_path("runs", run_id, "logs"), params, after)

    def crate(self, run_id: str, out: BinaryWriter, *, data: bool = True) -> int:
        """Writes the run's RO-Crate, a zip file, to `out`; the number of bytes."""
        params, path = {"data": "true" if data else "false"}, url_path("runs", run_id, "crate")
        with self.http.stream(path, params, timeout=READ_TIMEOUT) as response:
            return sum(out.write(piece) for piece in response.iter_raw())

    def crate_metadata(self, run_id: str) -> Json:
        """What the crate says: all its files with sizes and digests, as JSON-LD."""
        path = url_path("runs", run_id, "crate", "metadata")
        return dict(read_json(self.http.send("GET", path, timeout=READ_TIMEOUT)))

    def verify(self, run_id: str) -> Verification:
        """Every byte of the run's snapshots and logs against its record."""
        path = url_path("runs", run_id, "verify")
        return self.http.get(path, Verification, timeout=READ_TIMEOUT)


def open_events(
    http: GatewayHttp, path: str, params: Json, after: str | None = None
) -> Iterator[ServerEvent]:
    """Subscribes to a stream. The node has accepted when this returns: nothing is missed from then on."""
    headers = {"Accept": "text/event-stream"} | compact({"Last-Event-ID": after})
    with ExitStack() as opened:
        response = opened.enter_context(http.stream(path, params, headers=headers, timeout=SILENCE))
        return _read_stream(response, opened.pop_all())


def _read_stream(response: httpx.Response, opened: ExitStack) -> Iterator[ServerEvent]:
    with opened:
        yield from read_events(response.iter_lines())


def log_text(event: ServerEvent) -> str:
    """The text in an event of a log: a JSON string, or the data as it is."""
    try:
        text = json.loads(event.data)
    except ValueError:
        return event.data
    return text if isinstance(text, str) else event.data
