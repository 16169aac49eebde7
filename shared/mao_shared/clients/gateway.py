"""Synchronous client of a node's public API, for maoctl and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Self

import httpx

from mao_shared import models
from mao_shared.models.audit import AuditEntry
from mao_shared.models.log import LogLines
from mao_shared.models.node import EngineInfo, NodeStatus
from mao_shared.models.progress import OngoingWork
from mao_shared.models.run import CancelBody, ReproduceBody, Verification
from mao_shared.models.schedule import BackfillRequest, CronPreview, ScheduleRequest
from mao_shared.models.tool import CheckReport, CheckRequest

from .gateway_catalogue import CatalogueCalls
from .gateway_data import BinaryWriter, DatasetCalls, ExternalDataCalls, RoundCalls
from .gateway_federation import AlarmCalls, FederationCalls, NodeCalls, WebhookCalls
from .gateway_http import GatewayHttp, Resource, StalenessCallback, compact, url_path
from .gateway_notifications import NotificationCalls
from .gateway_secrets import SecretCalls
from .responses import ServerEvent, check, dump_body, read_events, read_json, request_body
from .services import PULL_TIMEOUT

Json = dict[str, Any]
STREAM_TIMEOUT = 60.0  # seconds; streams send a keep-alive every 15
READ_TIMEOUT = 900.0  # seconds; the node reads all of a run before it responds


class MaoClient:
    """All public calls of a node, by noun. Names may be any text: they are quoted in URLs.

    Raises the exceptions of `errors.py`; PeerUnavailable if the node does not answer.

    Args:
        url: of the gateway.
        token: sent as a bearer token; not needed on the node itself.
        timeout: seconds for a response.
        attempts: how often an idempotent call is sent while the node does not answer.
        transport: for tests.
        on_stale: called for each stale response, made of copies while the federation does not answer: with
            the time of the copies, and the federation's name if it has removed the node (else ``).
        agent: name of the program, which the audit log of the node shows.
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
        agent: str = "mao-client",
    ) -> None:
        self.http = http = GatewayHttp(
            url,
            token=token,
            timeout=timeout,
            attempts=attempts,
            transport=transport,
            on_stale=on_stale,
            agent=agent,
        )
        self.tools = ToolCalls(http, "/registry/tools", models.Tool)
        self.datasets = DatasetCalls(http)
        self.pipelines = PipelineCalls(http, "/registry/pipelines", models.Pipeline)
        self.catalogue = CatalogueCalls(http)
        self.enrolments = EnrolmentCalls(http, "/enrolments", models.Enrolment)
        self.jobs = JobCalls(http, "/jobs", models.Job)
        self.runs = RunCalls(http)
        self.rounds = RoundCalls(http)
        self.external = ExternalDataCalls(http)
        self.nodes = NodeCalls(http)
        self.federation = FederationCalls(http)
        self.alarms = AlarmCalls(http)
        self.webhooks = WebhookCalls(http)
        self.notifications = NotificationCalls(http)
        self.secrets = SecretCalls(http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def status(self) -> NodeStatus:
        """Return the readiness of every service and store, versions, next steps."""
        return self.http.get("/status", NodeStatus)

    def engine(self) -> EngineInfo:
        """Return the container engine's capacity, and how many slots are in use."""
        return self.http.get("/engine", EngineInfo)

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        failed: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[AuditEntry]:
        """Yield who changed what, newest first; pages are fetched as the caller reads on.

        `action`: an operation id, or its part before the dot. `failed`: True for what was refused.
        """
        params: Json = {"actor": actor, "action": action, "subject": subject}
        params |= {"failed": None if failed is None else str(failed).lower()}
        params |= {"since": since and models.format_time(since), "until": until and models.format_time(until)}
        return self.http.pages("/audit", AuditEntry, params)

    def progress(self, request_id: str) -> list[OngoingWork]:
        """Return what a request that has no response yet waits for. `request_id`: it was sent with."""
        return self.http.items(url_path("progress", request_id), OngoingWork)

    def accept_store(self) -> None:
        """Accept the node's etcd as it is now, despite lost data."""
        self.http.execute("POST", "/store/accept")

    def events(self, after: str | None = None) -> Iterator[ServerEvent]:
        """Follow the changes of all runs on the node. `after`: id of the event to resume after."""
        return open_events(self.http, "/events", {}, after)


class ToolCalls(Resource[models.Tool]):
    """Registered tools, and compliance checks of images."""

    def check(self, request: CheckRequest) -> CheckReport:
        """Check whether an image complies with the rules for tools; pulls it if necessary."""
        body = dump_body(request)
        return self.http.call("POST", "/tools/check", CheckReport, json=body, timeout=PULL_TIMEOUT)


class PipelineCalls(Resource[models.Pipeline]):
    """Registered pipelines, and this node's enrolments in them."""

    def states(self) -> Iterator[models.PipelineState]:
        """Yield the pipelines with the state of this node's enrolment."""
        return self.http.pages("/pipeline", models.PipelineState)

    def init(self, body: models.PipelineInit) -> models.Pipeline:
        """Register a pipeline and enrol this node; pulls its images first."""
        document = body.model_dump(mode="json", exclude_defaults=True)
        return self.http.call("POST", "/pipeline/init", models.Pipeline, json=document, timeout=PULL_TIMEOUT)

    def diff(self, name: str) -> models.PipelineDiff:
        """Compare what runs on the node with what is registered."""
        return self.http.get(url_path("pipeline", name, "diff"), models.PipelineDiff)

    def approve(self, name: str, definition: str, agree: list[str]) -> models.Enrolment:
        """Approve the pipeline as shown by `diff`.

        Raises PreconditionFailed if its `definition` is another one by now.
        """
        path = url_path("pipeline", name, "approve")
        body = request_body(models.Approval, definition=definition, agree=agree)
        return self.http.call("POST", path, models.Enrolment, json=body, timeout=PULL_TIMEOUT)

    def schedule(self, request: ScheduleRequest) -> models.Schedule:
        """Schedule a pipeline."""
        return self.http.call("POST", "/pipeline/run", models.Schedule, json=dump_body(request))

    def run(
        self, name: str, *, scheduled_for: datetime | None = None, idempotency_key: str | None = None
    ) -> models.Run:
        """Run a pipeline once, now. `scheduled_for`: the tick that its tools are given."""
        body = request_body(models.RunRequest, name=name, scheduled_for=scheduled_for)
        headers = compact({"Idempotency-Key": idempotency_key})
        return self.http.call("POST", "/pipeline/run", models.Run, json=body, headers=headers)


class EnrolmentCalls(Resource[models.Enrolment]):
    """Enrolments of this node in pipelines."""

    def enrol(self, pipeline: str, agree: list[str]) -> models.Enrolment:
        """Enrol this node in a registered pipeline, or renew the enrolment; pulls its images first."""
        body = request_body(models.EnrolmentRequest, agree=agree)
        return self.http.call("PUT", self.at(pipeline), models.Enrolment, json=body, timeout=PULL_TIMEOUT)


class JobCalls(Resource[models.Job]):
    """The schedules of this node."""

    def pause(self, job: str) -> models.Job:
        return self.http.call("POST", self.at(job, "pause"), models.Job)

    def resume(self, job: str) -> models.Job:
        return self.http.call("POST", self.at(job, "resume"), models.Job)

    def backfill(
        self, job: str, since: datetime, until: datetime, *, dry_run: bool = False
    ) -> models.BackfillResult:
        """Run the missed ticks in [since, until]; with `dry_run`, only return them."""
        body = request_body(BackfillRequest, since=since, until=until, dry_run=dry_run or None)
        return self.http.call("POST", self.at(job, "backfill"), models.BackfillResult, json=body)

    def next_times(self, job: str, count: int = 5) -> models.NextTimes:
        return self.http.get(self.at(job, "next"), models.NextTimes, {"count": count})

    def preview(self, request: CronPreview) -> models.NextTimes:
        """Return the next times of a cron string."""
        return self.http.call("POST", "/cron/preview", models.NextTimes, json=dump_body(request))


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
        """Yield runs, newest first; pages are fetched as the caller reads on.

        `schedule`: also the runs that it shares with other schedules. `since`, `until`: of a run's tick, or
        of its request if it has none.
        """
        params: Json = {"pipeline": pipeline, "phase": phase, "schedule": schedule, "trigger": trigger}
        params |= {"since": since and models.format_time(since), "until": until and models.format_time(until)}
        return self.http.pages("/runs", models.Run, params)

    def get(self, run_id: str) -> models.Run:
        return self.http.get(url_path("runs", run_id), models.Run)

    def cancel(self, run_id: str, reason: str = "") -> models.Run:
        body = request_body(CancelBody, reason=reason)
        return self.http.call("POST", url_path("runs", run_id, "cancel"), models.Run, json=body)

    def retry(self, run_id: str) -> models.Run:
        """Start a new run of the same pipeline that refers to this one."""
        return self.http.call("POST", url_path("runs", run_id, "retry"), models.Run)

    def reproduce(self, run_id: str, step: str | None = None) -> models.Run:
        """Start a run that repeats a step and compares its output instead of publishing it.

        `step`: required if the run has several.
        """
        path = url_path("runs", run_id, "reproduce")
        return self.http.call("POST", path, models.Run, json=request_body(ReproduceBody, step=step))

    def events(self, run_id: str, after: str | None = None) -> Iterator[ServerEvent]:
        """Follow a run: its document at every change, until it ends or the stream does."""
        return open_events(self.http, url_path("runs", run_id, "events"), {}, after)

    def log(self, run_id: str, *, step: int | None = None, attempt: int | None = None) -> str:
        """Return the log of a step so far."""
        params = compact({"step": step, "attempt": attempt})
        response = self.http.send("GET", url_path("runs", run_id, "logs"), params=params)
        check(response)
        return response.text

    def log_lines(
        self, run_id: str, *, step: int | None = None, attempt: int | None = None, text: str | None = None
    ) -> LogLines:
        """Return the last lines of the log of a step with their numbers, or the first that contain `text`."""
        params = compact({"step": step, "attempt": attempt, "q": text})
        return self.http.get(url_path("runs", run_id, "logs", "lines"), LogLines, params)

    def follow_log(
        self, run_id: str, *, step: int | None = None, attempt: int | None = None, after: str | None = None
    ) -> Iterator[ServerEvent]:
        """Follow the log of a step until its container ends; `log_text` gives the text of an event."""
        params = compact({"step": step, "attempt": attempt, "follow": "true"})
        return open_events(self.http, url_path("runs", run_id, "logs"), params, after)

    def crate(self, run_id: str, out: BinaryWriter, *, data: bool = True) -> int:
        """Write the run's RO-Crate, a zip file, to `out`; return the number of bytes."""
        params, path = {"data": "true" if data else "false"}, url_path("runs", run_id, "crate")
        with self.http.stream(path, params, timeout=READ_TIMEOUT) as response:
            return sum(out.write(piece) for piece in response.iter_raw())

    def crate_metadata(self, run_id: str) -> Json:
        """Return the metadata of the run's RO-Crate as JSON-LD: all its files with sizes and digests."""
        path = url_path("runs", run_id, "crate", "metadata")
        return dict(read_json(self.http.send("GET", path, timeout=READ_TIMEOUT)))

    def verify(self, run_id: str) -> Verification:
        """Compare every byte of the run's snapshots and logs with its record."""
        path = url_path("runs", run_id, "verify")
        return self.http.get(path, Verification, timeout=READ_TIMEOUT)


def open_events(
    http: GatewayHttp, path: str, params: Json, after: str | None = None
) -> Iterator[ServerEvent]:
    """Subscribe to a stream; returns once the node has accepted, so that no later event is missed."""
    headers = {"Accept": "text/event-stream"} | compact({"Last-Event-ID": after})
    with ExitStack() as opened:
        response = opened.enter_context(http.stream(path, params, headers=headers, timeout=STREAM_TIMEOUT))
        stream = opened.pop_all()

    def read_stream() -> Iterator[ServerEvent]:
        with stream:
            yield from read_events(response.iter_lines())

    return read_stream()


def log_text(event: ServerEvent) -> str:
    """Return the text of a log event: its data is a JSON string, or the text itself."""
    try:
        text = json.loads(event.data)
    except ValueError:
        return event.data
    return text if isinstance(text, str) else event.data
