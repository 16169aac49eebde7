"""The client of a node's public API, for maoctl and scripts; synchronous."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from mao_shared.errors import PeerUnavailable
from mao_shared.models import (
    Dataset,
    Enrolment,
    Listing,
    Member,
    Pipeline,
    PipelineInit,
    ResolvedImage,
    Run,
    Schedule,
    Tool,
    format_time,
)
from mao_shared.models.common import STORED
from mao_shared.models.schedule import Job
from mao_shared.states import RUN_ENDED

from .gateway_data import BinaryWriter, ContentCalls, EvidenceCalls, ExternalCalls, RoundCalls
from .gateway_federation import AlarmCalls, ConsentCalls, FederationCalls, NodeCalls
from .gateway_http import GatewayHttp, Resource, StalenessCallback, compact
from .responses import ServerEvent, check, json_of, read_events, record_of
from .services import PULL_TIMEOUT, EngineInfo, Pull

Json = dict[str, Any]
SILENCE = 60.0  # seconds; streams send a keep-alive every 15
FOLLOW_PAUSE = 1.0  # seconds before a stream that broke off is asked for again


class MaoClient(
    ContentCalls,
    AlarmCalls,
    ExternalCalls,
    EvidenceCalls,
    FederationCalls,
    ConsentCalls,
    RoundCalls,
    NodeCalls,
):
    """All public calls of a node. Errors are the exceptions of `errors.py`; PeerUnavailable when away.

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
        self.http = GatewayHttp(
            url, token=token, timeout=timeout, attempts=attempts, transport=transport, on_stale=on_stale
        )
        self.tools = Resource(self.http, "/registry/tools", Tool)
        self.datasets = Resource(self.http, "/registry/datasets", Dataset)
        self.pipelines = Resource(self.http, "/registry/pipelines", Pipeline)
        self.nodes = Resource(self.http, "/registry/nodes", Member)
        self.enrolments = Resource(self.http, "/enrolments", Enrolment)
        self.jobs = Resource(self.http, "/jobs", Job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    # pipelines

    def node_pipelines(self) -> list[Json]:
        """The pipelines with the state of this node's enrolment."""
        return list(self.http.pages("/pipeline"))

    def init_pipeline(self, body: PipelineInit) -> Json:
        """Registers the pipeline and enrols this node; pulls its images first."""
        document = body.model_dump(mode="json", exclude_defaults=True)
        return self._object("POST", "/pipeline/init", json=document, timeout=PULL_TIMEOUT)

    def enrol(self, pipeline: str, agree: list[str]) -> Json:
        """Enrols this node in a registered pipeline, or renews the enrolment."""
        return self._object(
            "PUT", f"/enrolments/{quote(pipeline, safe='')}", json={"agree": agree}, timeout=PULL_TIMEOUT
        )

    # runs

    def start_run(
        self, pipeline: str, *, scheduled_for: datetime | None = None, idempotency_key: str | None = None
    ) -> Run:
        """Runs the pipeline once, now."""
        body = compact({"name": pipeline, "scheduled_for": scheduled_for and format_time(scheduled_for)})
        headers = compact({"Idempotency-Key": idempotency_key})
        return record_of(self.http.send("POST", "/pipeline/run", json=body, headers=headers), Run)

    def runs(
        self,
        *,
        pipeline: str | None = None,
        phase: str | None = None,
        schedule: str | None = None,
        trigger: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Run]:
        """Newest first, page by page as far as the caller reads. `schedule`: also runs that it shares.

        `since`, `until`: by a run's tick, or when it was asked for.
        """
        wanted = compact({"pipeline": pipeline, "phase": phase, "schedule": schedule, "trigger": trigger})
        wanted |= compact({"since": since and format_time(since), "until": until and format_time(until)})
        for item in self.http.pages("/runs", wanted):
            yield Run.model_validate(item, context=STORED)

    def run(self, run_id: str) -> Run:
        return record_of(self.http.send("GET", f"/runs/{run_id}"), Run)

    def cancel_run(self, run_id: str, reason: str = "") -> Run:
        return record_of(self.http.send("POST", f"/runs/{run_id}/cancel", json={"reason": reason}), Run)

    def retry_run(self, run_id: str) -> Run:
        """A new run of the same pipeline that refers to this one."""
        return record_of(self.http.send("POST", f"/runs/{run_id}/retry"), Run)

    def reproduce_run(self, run_id: str, step: str | None = None) -> Run:
        """A run that repeats a step (needed where there are several) and compares instead of publishing."""
        return record_of(
            self.http.send("POST", f"/runs/{run_id}/reproduce", json=compact({"step": step})), Run
        )

    def watch_run(self, run_id: str) -> Iterator[Run]:
        """The run now and at every change, to its end; asks again when the stream breaks off."""
        while True:
            run = self.run(run_id)
            yield run
            with suppress(PeerUnavailable):
                for event in self.run_events(run_id):
                    run = Run.model_validate_json(event.data, context=STORED)
                    yield run
            if run.phase in RUN_ENDED:
                return
            time.sleep(FOLLOW_PAUSE)

    def run_events(self, run_id: str, after: str | None = None) -> Iterator[ServerEvent]:
        """The run's document at every change, until it ends or the stream breaks off."""
        return self._events(f"/runs/{run_id}/events", after=after)

    def log(self, run_id: str, *, step: int | None = None, attempt: int | None = None) -> str:
        """What the step's container has written so far."""
        response = self.http.send("GET", f"/runs/{run_id}/logs", params=_which(step, attempt))
        check(response)
        return response.text

    def follow_log(
        self, run_id: str, *, step: int | None = None, attempt: int | None = None, after: str | None = None
    ) -> Iterator[ServerEvent]:
        """Pieces of the log as they are written, to the container's end; `text` of each by `log_text`."""
        params = _which(step, attempt) | {"follow": "true"}
        return self._events(f"/runs/{run_id}/logs", params, after)

    # jobs

    def schedule(self, pipeline: str, cron: str, **fields: Any) -> Schedule:
        """Schedules the pipeline; `fields` are those of ScheduleSpec, None left out."""
        body = compact({"name": pipeline, "cron": cron, **fields})
        return record_of(self.http.send("POST", "/pipeline/run", json=body), Schedule)

    def pause_job(self, job: str) -> Job:
        return record_of(self.http.send("POST", f"/jobs/{job}/pause"), Job)

    def resume_job(self, job: str) -> Job:
        return record_of(self.http.send("POST", f"/jobs/{job}/resume"), Job)

    def backfill_job(self, job: str, since: datetime, until: datetime) -> Json:
        """Runs the ticks in [since, until] that were missed."""
        body = {"since": format_time(since), "until": format_time(until)}
        return self._object("POST", f"/jobs/{job}/backfill", json=body)

    def next_ticks(self, job: str, count: int = 5) -> Json:
        return self._object("GET", f"/jobs/{job}/next", params={"count": count})

    def preview_cron(self, cron: str, **fields: Any) -> Json:
        """The next times of a cron string; `fields`: timezone, seconds, count."""
        return self._object("POST", "/cron/preview", json=compact({"cron": cron, **fields}))

    # images and the engine

    def resolve_image(self, image: str, pull: Pull = "missing") -> ResolvedImage:
        body = {"image": image, "pull": pull}
        response = self.http.send("POST", "/images/resolve", json=body, timeout=PULL_TIMEOUT)
        return record_of(response, ResolvedImage)

    def check_tool(self, image: str, **fields: Any) -> Json:
        """A report of the image's compliance; `fields`: command, env, input, timeout."""
        body = compact({"image": image, **fields})
        return self._object("POST", "/tools/check", json=body, timeout=PULL_TIMEOUT)

    def engine(self) -> EngineInfo:
        return record_of(self.http.send("GET", "/engine"), EngineInfo)

    # datasets on this node

    def init_bare_repo(self, name: str) -> Json:
        """Makes a local bare repository; its `master` serves as a dataset's remote."""
        return self._object("POST", "/bare-repo/init", json={"name": name})

    def dataset_statuses(self) -> Iterator[Json]:
        return self.http.pages("/datasets")

    def dataset_status(self, name: str) -> Json:
        return self._object("GET", f"/datasets/{name}")

    def resolve_dataset(self, name: str, how: str) -> Json:
        """`how`: merge, replay or take-theirs."""
        return self._object("POST", f"/datasets/{name}/resolve", json={"how": how})

    def go_alone(self, name: str) -> Json:
        """Lets the node alone decide the dataset's ground truth from now on; its status after that."""
        return self._object("POST", f"/datasets/{name}/alone")

    def set_aside_dataset(self, name: str) -> Json:
        """Puts the node's clone of a dataset away that is not used any more."""
        return self._object("POST", f"/datasets/{name}/set-aside")

    def ensure_dataset(self, dataset: Dataset) -> Json:
        """Lets the node's clone be as the record says; makes it where there is none."""
        document = dataset.model_dump(mode="json", exclude_none=True)
        return self._object("PUT", f"/datasets/{dataset.name}", json=document, timeout=PULL_TIMEOUT)

    def push_dataset(self, name: str) -> Json:
        """Pushes what waits for the dataset's remote; its status after that."""
        return self._object("POST", f"/datasets/{name}/push")

    def acknowledge_dataset(self, name: str) -> dict[str, Any]:
        """Says that a person has seen the broken clones that were set aside; the dataset's state."""
        return self._object("POST", f"/datasets/{name}/acknowledge")

    def history(self, name: str, branch: str | None = None) -> Iterator[Json]:
        """The commits of a branch, newest first, page by page as far as the caller reads."""
        return self.http.pages(f"/datasets/{name}/log", compact({"branch": branch}))

    def files(self, name: str, *, ref: str | None = None, path: str | None = None) -> Iterator[Json]:
        return self.http.pages(f"/datasets/{name}/files", compact({"ref": ref, "path": path}))

    def download(self, name: str, path: str, out: BinaryWriter | Path, *, ref: str | None = None) -> int:
        """Writes a file of the dataset to `out`; the number of bytes."""
        params = compact({"ref": ref, "path": path})
        with self.http.stream(f"/datasets/{name}/file", params) as response, _writable(out) as target:
            return sum(target.write(piece) for piece in response.iter_bytes())

    def signers(self) -> str:
        """An allowed-signers file with which git checks the federation's commits."""
        response = self.http.send("GET", "/signers")
        check(response)
        return response.text

    # the node

    def accept_store(self) -> None:
        """The node's etcd counts as it is now, whatever was lost."""
        self.http.send("POST", "/store/accept")

    def status(self) -> Json:
        """Readiness of every service and store, versions, next steps."""
        return self._object("GET", "/status")

    def events(self, after: str | None = None) -> Iterator[ServerEvent]:
        """Changes of all runs of the node, for ever or until the stream breaks off."""
        return self._events("/events", {}, after)

    def _object(self, method: str, path: str, **options: Any) -> Json:
        return dict(json_of(self.http.send(method, path, **options)) or {})

    def _events(
        self, path: str, params: Json | None = None, after: str | None = None
    ) -> Iterator[ServerEvent]:
        """The node has accepted the subscription when this returns: nothing is missed from then on."""
        headers = {"Accept": "text/event-stream"} | compact({"Last-Event-ID": after})
        with ExitStack() as opened:
            stream = self.http.stream(path, params or {}, headers=headers, timeout=SILENCE)
            response = opened.enter_context(stream)
            return _read(response, opened.pop_all())


def _read(response: httpx.Response, opened: ExitStack) -> Iterator[ServerEvent]:
    with opened:
        yield from read_events(response.iter_lines())


def log_text(event: ServerEvent) -> str:
    """The text in an event of a log: a JSON string, or the data as it is."""
    try:
        text = json.loads(event.data)
    except ValueError:
        return event.data
    return text if isinstance(text, str) else event.data


def _which(step: int | None, attempt: int | None) -> Json:
    return compact({"step": step, "attempt": attempt})


@contextmanager
def _writable(out: BinaryWriter | Path) -> Iterator[BinaryWriter]:
    if isinstance(out, Path):
        with out.open("wb") as target:
            yield target
    else:
        yield out


__all__ = ["Listing", "MaoClient", "ServerEvent", "log_text"]
