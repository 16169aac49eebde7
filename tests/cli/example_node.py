"""A double of a node that answers every call of `maoctl`, with names as long as they are in practice."""

from __future__ import annotations

import dataclasses
import json
import types
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from mao_shared import models
from mao_shared.models import (
    alarm,
    audit,
    catalogue,
    check,
    dataset,
    evidence,
    external,
    federation,
    notification,
    run,
    schema,
    secret,
    tool,
)
from mao_shared.models import round as rounds
from mao_shared.models import schedule as schedules
from mao_shared.models.enrolment import PipelineDiff
from mao_shared.models.node import EngineInfo

from . import documents
from .documents import Json, ago
from .gateways import RememberingGateway, Stream, sse

NODE = "observatory-zurich-03.ifi.example.org"
TOOL = "air-quality-crawler-zurich-city"
DATASET = "air-quality-observations-zurich-2026"
PIPELINE = "air-quality-observations-zurich"
IMAGE = "registry.git.example.org/seal/crawlers/air-quality-zurich:2026.01.31-2"
RUN = f"20260131T115900Z-{PIPELINE}-0a1b2c3d"
OLD_RUN = f"20260131T023000Z-{PIPELINE}-9f8e7d6c"
ALARM = "level-shift-air-quality-observations-zurich-rows-20260131T120000Z"
ROUND = "20260131T120000Z"
SERIES = f"{PIPELINE}/{TOOL}/median-particulate-matter"
CHANNEL = "observatory-operations-mail"
SECRET = "air-quality-network-api-token-of-zurich"
RULE = "at-night-only-what-cannot-wait-until-morning"
WEBHOOK = "mattermost-observatory-operations"
COMMIT = "c0ffee" * 6 + "abcd"
REASON = (
    "The tool ended with exit code 3: could not resolve sensors.observatory.example.org; the last attempt "
    "of three was made at 2026-01-31T11:58:10Z."
)
JOB = schedules.schedule_id(
    PIPELINE, schedules.ScheduleSpec(cron="30 2 * * mon-fri", timezone="Europe/Zurich")
)


def example(model: type[BaseModel], **given: Any) -> Json:
    """Return a document of a model with the given fields, and an example of each other required one."""
    fields = {
        name: _value(field.annotation, field.examples)
        for name, field in model.model_fields.items()
        if field.is_required() and name not in given
    }
    model.model_validate(fields | given)
    return fields | given


def _value(annotation: Any, examples: list[Any] | None = None) -> Any:
    """Return an example of a type: empty collections, the first word of those allowed."""
    if examples:
        return examples[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = [item.examples for item in arguments[1:] if getattr(item, "examples", None)]
        return _value(arguments[0], found[0] if found else None)
    if origin in (Union, types.UnionType):
        return None if type(None) in arguments else _value(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in (list, dict, tuple, set):
        return {} if origin is dict else []
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation)).value
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return example(annotation)
    if dataclasses.is_dataclass(annotation):
        return {}
    return {str: "example", int: 3, float: 0.25, bool: True, datetime: ago(600)}[annotation]


def listing(*items: Json, **more: Any) -> Json:
    return {"items": list(items), "cursor": None, **more}


def a_run(run_id: str = RUN, phase: str = "failed", **fields: Any) -> Json:
    error = {"code": "tool-failed", "detail": REASON, "next": f"maoctl run logs {run_id}", "fault": "tool"}
    step = documents.step(TOOL, "failed", error=error, exit={"code": 3}, attempt=2)
    step["spec"] |= {"output": {"name": DATASET, "master": "/srv/x.git", "branch": NODE}}
    if phase != "failed":
        error, step = None, documents.step(TOOL, "succeeded")  # type: ignore[assignment]
    tick = {"trigger": "schedule", "scheduled_for": ago(90), "schedule": JOB}
    basis: Json = {"pipeline": PIPELINE, "node": NODE, "steps": [step], "error": error}
    return documents.run(run_id, phase, **basis, **tick, **fields)


def answer_registry(gateway: RememberingGateway) -> None:
    a_tool = documents.tool(TOOL, image=IMAGE, description="Fetches the city's sensors every quarter hour.")
    a_dataset = documents.dataset(
        DATASET,
        master="git@git.example.org:observatory/air-quality-observations-zurich-2026.git",
        nodes=[NODE],
    )
    step = {"tool": TOOL, "dataset": DATASET}
    a_pipeline = documents.pipeline(PIPELINE, steps=[step], title="Air quality of the city of Zürich, hourly")
    spec = documents.step(TOOL)["spec"]
    enrolment = example(models.Enrolment, pipeline=PIPELINE, node=NODE, steps=[spec], agreed=["host network"])
    gateway.keep("/registry/tools", a_tool)
    gateway.keep("/registry/datasets", a_dataset)
    gateway.keep("/registry/pipelines", a_pipeline)
    gateway.keep("/enrolments", enrolment, key="pipeline")
    state = {"enrolled": True, "outdated": True, "pending": [f"tool/{TOOL}: image"], "enrolment": enrolment}
    gateway.answer("GET", "/pipeline", listing(a_pipeline | state))
    gateway.answer("POST", "/pipeline/init", a_pipeline, 201)
    gateway.answer("POST", "/pipeline/run", a_run(phase="queued"), 201)
    definition = "1f3a5c7d9b2e4a60" * 2
    diff = example(PipelineDiff, pipeline=PIPELINE, definition=definition, diff="-image: x\n+image: y")
    gateway.answer("GET", f"/pipeline/{PIPELINE}/diff", diff)
    gateway.answer("POST", f"/pipeline/{PIPELINE}/approve", enrolment)
    gateway.answer("PUT", f"/enrolments/{PIPELINE}", enrolment)
    finding = {"name": "writes-data", "ok": True, "detail": REASON, "advice": "Write to /usr/src/app/data."}
    report = example(tool.CheckReport, image=IMAGE, compliant=True, findings=[finding], log="done\n")
    gateway.answer("POST", "/tools/check", report)


def answer_runs(gateway: RememberingGateway) -> None:
    missed: Json = {"steps": [], "started_at": None, "reason": "late by 5 min", "error": None}
    runs = (a_run(), a_run(OLD_RUN, "missed") | missed)
    gateway.keep("/runs", *runs, key="id")
    at = f"/runs/{RUN}"
    gateway.answer("GET", f"{at}/logs", "10 % done\nno answer from sensor 7\n")
    for verb, phase in (("cancel", "cancelled"), ("retry", "queued"), ("reproduce", "queued")):
        gateway.answer("POST", f"{at}/{verb}", a_run(phase=phase))
    gateway.answer(
        "GET", f"{at}/verify", example(run.Verification, run=RUN, ok=True, faults=[], unchecked=[])
    )
    gateway.answer("GET", f"{at}/crate", "PK")
    gateway.answer("GET", f"{at}/crate/metadata", {"@graph": []})
    gateway.stream(f"{at}/events", Stream([sse(a_run(phase="succeeded"), "9")]))
    gateway.stream("/events", Stream([sse(a_run(phase="succeeded"), "9")]))
    spec = {"cron": "30 2 * * mon-fri", "timezone": "Europe/Zurich", "pipeline": PIPELINE}
    outcome = {"run": OLD_RUN, "scheduled_for": ago(90), "phase": "missed"}
    job = documents.job(JOB, **spec) | {"next": ago(-3600), "last": outcome}
    gateway.keep("/jobs", job, key="id")
    times = {"times": [ago(-3600), ago(-90_000)]}
    gateway.answer("GET", f"/jobs/{JOB}/next", times)
    gateway.answer("POST", "/cron/preview", times)
    for verb in ("pause", "resume"):
        gateway.answer("POST", f"/jobs/{JOB}/{verb}", job)
    gateway.answer("POST", f"/jobs/{JOB}/backfill", {"queued": [OLD_RUN], "present": 1})


def answer_datasets(gateway: RememberingGateway) -> None:
    branch = example(dataset.BranchStatus, name=NODE, commit=COMMIT, time=ago(90), subject=REASON, unpushed=2)
    outbox = {"state": "waiting", "waiting": 2, "since": ago(90), "detail": REASON, "next": "Allow the push."}
    status = documents.dataset_status(DATASET, branches=[branch], outbox=outbox)
    gateway.keep("/datasets", status)
    at = f"/datasets/{DATASET}"
    commit = example(
        dataset.CommitInfo,
        commit=COMMIT,
        parents=[],
        author="Observatory of Zürich, node 3",
        time=ago(90),
        subject=f"[DATALAD RUNCMD] {PIPELINE}/{TOOL}",
        run=RUN,
    )
    gateway.answer("GET", f"{at}/log", listing(commit))
    files = [
        example(dataset.FileInfo, path=f"observations/2026/01/31/{name}.csv") for name in ("hourly", "daily")
    ]
    gateway.answer("GET", f"{at}/files", listing(*files))
    version = example(dataset.ValueVersion, commit=COMMIT, run=RUN, value="21.5", changed=True, reason=REASON)
    gateway.answer("GET", f"{at}/history", f"\n{json.dumps(version, default=str)}\n")
    gateway.answer("GET", f"{at}/file", "sensor,value\nzurich-7,21.5\n")
    gateway.answer("GET", f"{at}/archive", "PK")
    change = example(dataset.FileDifference, path="observations/2026/01/31/hourly.csv")
    gateway.answer("GET", f"{at}/diff", example(dataset.DatasetDiff, files=[change]))
    in_sync = documents.dataset_status(DATASET)
    for verb in ("push", "acknowledge", "alone"):
        gateway.answer("POST", f"{at}/{verb}", in_sync)
    gateway.answer("POST", f"{at}/resolve", example(dataset.Resolution))
    result = example(check.CheckResult, name="enough-rows", passed=False, detail=REASON)
    held = example(
        check.QuarantinedSnapshot,
        dataset=DATASET,
        node=NODE,
        commit=COMMIT,
        run=RUN,
        step=TOOL,
        checks=[result],
    )
    gateway.answer("GET", f"{at}/quarantine", listing(held))
    gateway.answer("GET", f"{at}/quarantine/{COMMIT}", held)
    gateway.answer(
        "POST", f"{at}/quarantine/{COMMIT}/accept", held | {"state": "accepted", "accepted_as": COMMIT}
    )
    gateway.answer("POST", f"{at}/quarantine/{COMMIT}/discard", held | {"state": "discarded"})
    gateway.answer("POST", f"{at}/set-aside", example(dataset.SetAside))
    gateway.answer("POST", "/bare-repo/init", example(dataset.BareRepository, master="/srv/git/new.git"), 201)
    gateway.answer("POST", "/remotes/check", example(external.RemoteState))
    gateway.answer("GET", f"{at}/external", example(external.ExternalState))
    gateway.answer("POST", "/write", example(external.Receipt))
    insight = example(external.Insight, key=f"{TOOL}/{NODE}", dataset=DATASET) | {"value": {"note": REASON}}
    gateway.answer("POST", "/read", insight)
    gateway.answer("POST", "/inspect", {"items": [insight]})


def answer_rounds(gateway: RememberingGateway) -> None:
    at = f"/datasets/{DATASET}/rounds"
    summary = example(evidence.RoundSummary, round=ROUND, commit=COMMIT)
    gateway.answer("GET", at, listing(summary, strays=None))
    live = example(rounds.LiveRound, id=ROUND, dataset=DATASET, nodes=[NODE], reason=REASON)
    gateway.answer("GET", "/rounds", listing(live))
    found = example(evidence.Evidence, round=ROUND, nodes=[NODE], commits={NODE: COMMIT})
    decided = example(evidence.DecidedRound, commit=COMMIT, evidence=found)
    cell = example(evidence.ContestedCell, file="observations/2026/01/31/hourly.csv", values={NODE: "21.5"})
    audit = example(evidence.Audit, round=ROUND, ok=True, commit=COMMIT, recomputed_commit=COMMIT)
    for name in (ROUND, "latest"):
        gateway.answer("GET", f"{at}/{name}", decided)
        gateway.answer("GET", f"{at}/{name}/cells", listing(cell))
        gateway.answer("GET", f"{at}/{name}/audit", audit)
        gateway.answer("GET", f"{at}/{name}/schema", example(schema.Schema))
    ranked = example(evidence.RankedNode, node=NODE)
    gateway.answer("GET", f"/datasets/{DATASET}/ranking", {"rounds": 3, "items": [ranked]})
    spike = example(alarm.RoundSpike, round=ROUND, metric="median-particulate-matter", nodes=[NODE])
    spikes = {"rounds": 3, "metrics": ["median-particulate-matter"], "items": [spike]}
    gateway.answer("GET", f"/datasets/{DATASET}/spikes", spikes)


def status() -> Json:
    """Return the status of a node that is well, as far as the example goes."""
    disk = {"free": 81 * 1024**3, "total": 400 * 1024**3, "writable": True, "reserve": 5 * 1024**3}
    git = {"name": "Observatory of Zürich, node 3", "email": "node-3@observatory.example.org"}
    services = {
        name: {"ready": True, "version": "0.1.0"} for name in ("registry", "runner", "datamgmt", "scheduler")
    }
    return documents.node_status(NODE) | {"disk": disk, "git": git, "services": services}


def answer_federation(gateway: RememberingGateway) -> None:
    gateway.keep("/federation/nodes", documents.node(NODE))
    gateway.answer("GET", "/status", status())
    gateway.answer("POST", "/store/accept", {})
    memory = 32 * 1024**3
    gateway.answer("GET", "/engine", example(EngineInfo, slots=4, cpus=8, memory=memory, running=3))
    gateway.answer("GET", "/signers", f"{NODE} ssh-ed25519 AAAA\n")
    gateway.answer("DELETE", f"/registry/nodes/{NODE}", {})
    gateway.answer("PUT", f"/trusted/{NODE}", example(models.Trust, node=NODE))
    gateway.answer("DELETE", f"/trusted/{NODE}", {})
    gateway.answer("GET", "/trusted", listing(example(models.Trust, node=NODE)))
    brief = example(federation.RunBrief, id=RUN)
    node_runs = example(models.NodeRuns, node=NODE, runs=[brief])
    gateway.answer("GET", "/federation/runs", listing(node_runs))
    answer = example(models.LogAnswer, text="no answer from sensor 7\n")
    gateway.answer("GET", "/federation/logs", answer)
    state = example(models.FederationState, name="observatories-of-switzerland", node=NODE)
    gateway.answer("GET", "/federation", state)
    gateway.answer("POST", "/federation", state, 201)
    member = example(models.NodeState, node=NODE, etcd="203.0.113.41:12379")
    gateway.answer("GET", "/federation/members", {"items": [member]})
    gateway.answer("POST", "/federation/invitations", example(models.Invitation, token="mao1.x"), 201)
    gateway.answer("POST", "/federation/join", example(models.Joined, **state))
    gateway.answer("DELETE", "/federation", example(models.Departure))
    gateway.answer("DELETE", f"/federation/members/{NODE}", {})
    gateway.answer("POST", f"/federation/members/{NODE}/promote", example(models.CoreMember, node=NODE))
    gateway.answer("POST", f"/federation/members/{NODE}/demote", example(models.Demotion, node=NODE))


def answer_alarms(gateway: RememberingGateway) -> None:
    an_alarm = example(models.Alarm, id=ALARM, kind="level-shift", node=NODE, detail=REASON)
    gateway.keep("/alarms", an_alarm, key="id")
    gateway.answer("POST", f"/alarms/{ALARM}/acknowledge", an_alarm)
    point = {"time": ago(90), "value": 21.5, "run": RUN, "expected": 20.25, "band": 1.5}
    pipeline, step, metric = SERIES.split("/")
    series = example(models.Series, pipeline=pipeline, step=step, metric=metric, points=[point], unit="µg/m³")
    gateway.answer("GET", "/series", {"items": [series]})
    gateway.answer("GET", f"/series/{SERIES}", series)
    hook = example(
        models.WebhookState,
        name=WEBHOOK,
        url="https://chat.example.org/hooks/air-quality/9k3j5h7g8f6d4s2a1q",
        last_error=REASON,
    )
    gateway.keep("/webhooks", hook)
    gateway.answer("POST", "/webhooks", hook | {"secret": "shown-once"}, 201)
    gateway.answer("DELETE", f"/webhooks/{WEBHOOK}", {})
    gateway.answer("POST", f"/webhooks/{WEBHOOK}/test", {"delivered": True})


def answer_notifications(gateway: RememberingGateway) -> None:
    channel = example(notification.ChannelState, name=CHANNEL, waiting=2, last_error=REASON)
    gateway.keep("/channels", channel)
    gateway.answer("POST", "/channels", channel, 201)
    quiet = {"start": "22:00", "end": "07:00", "timezone": "Europe/Zurich"}
    limits = {"quiet": quiet, "reminder": 43_200.0, "failures": 3}
    scope = {"pipelines": [PIPELINE], "datasets": [DATASET], "kinds": ["run-failed", "run-missed"]}
    gateway.keep("/rules", example(notification.Rule, name=RULE, channels=[CHANNEL], **scope, **limits))
    url = "https://hc.example.org/…"
    pinged = {"last": "success", "last_at": ago(90), "last_error": REASON}
    heartbeat = example(notification.HeartbeatState, pipeline=PIPELINE, url=url, **pinged)
    gateway.keep("/heartbeats", heartbeat, key="pipeline")
    gateway.answer("PUT", f"/heartbeats/{PIPELINE}", heartbeat)
    for path in (f"/channels/{CHANNEL}", f"/heartbeats/{PIPELINE}"):
        gateway.answer("POST", f"{path}/test", {"delivered": True})
    message_id = notification.message_id(ALARM, CHANNEL, "raised")
    message = example(
        notification.Message, id=message_id, channel=CHANNEL, event="raised", about=ALARM, last_error=REASON
    )
    gateway.answer("GET", "/messages", listing(message))


def answer_secrets(gateway: RememberingGateway) -> None:
    kept = example(secret.SecretState, name=SECRET, used_by=[f"{PIPELINE}/{TOOL}"])
    gateway.keep("/secrets", kept)
    gateway.answer("PUT", f"/secrets/{SECRET}", kept, 201)
    gateway.answer("POST", "/secrets/keys/rotate", {"secrets": 1})


def a_catalogue_entry() -> Json:
    items = [
        {"kind": "pipeline", "name": PIPELINE, "state": "created", "detail": f"{TOOL} → {DATASET}"},
        {"kind": "tool", "name": TOOL, "state": "kept", "detail": REASON, "changes": [f"image: {IMAGE}"]},
        {"kind": "image", "name": IMAGE, "state": "pulled", "detail": "it is not on this machine"},
    ]
    title, notes = "Air quality of the city of Zürich, hourly", ["the proposed schedule counts weekdays"]
    about = {"title": title, "description": REASON, "source": "observatory", "cron": "30 2 * * 1-5"}
    state = {"state": "ready", "items": items, "notes": notes, "contacts": ["operator@example.org"]}
    entry = example(catalogue.CatalogueEntry, kind="pipelines", name=PIPELINE, **about, **state)
    return entry | {"faults": [], "timezone": None}


def answer_catalogue(gateway: RememberingGateway) -> None:
    entry = a_catalogue_entry()
    gateway.answer("GET", "/catalogue", listing(entry))
    gateway.answer("POST", "/catalogue/inspect", listing(entry))
    gateway.answer("GET", f"/catalogue/pipelines/{PIPELINE}", entry)
    gateway.answer("POST", "/catalogue/plan", entry)
    gateway.answer("POST", "/catalogue/install", entry | {"state": "installed"})
    location = "https://hub.observatory.example.org/catalogues/air-quality.json"
    source = {"name": "observatory", "location": location, "entries": 3, "fault": None}
    gateway.answer("GET", "/catalogue/sources", listing(source))


def answer_audit(gateway: RememberingGateway) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"
    who = {"actor": "observatory-operations", "actor_kind": "token", "user_agent": agent}
    renamed = example(audit.AuditEntry, id="20260131T115900123456Z-0a1b2c3d", subject=PIPELINE, **who)
    refused = {"status": 404, "action": None, "path": f"/pipeline/{PIPELINE}/approve"}
    failed = example(audit.AuditEntry, id="20260131T115800123456Z-9f8e7d6c", **refused)
    gateway.answer("GET", "/audit", listing(renamed | {"action": "pipelines.approve", "status": 200}, failed))


def answer_all(gateway: RememberingGateway) -> RememberingGateway:
    """Let a gateway answer every call."""
    answer_registry(gateway)
    answer_runs(gateway)
    answer_datasets(gateway)
    answer_rounds(gateway)
    answer_federation(gateway)
    answer_alarms(gateway)
    answer_notifications(gateway)
    answer_secrets(gateway)
    answer_catalogue(gateway)
    answer_audit(gateway)
    return gateway
