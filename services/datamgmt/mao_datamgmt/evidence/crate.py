"""The metadata of a crate as JSON-LD: RO-Crate 1.1 with the profile Process Run Crate 0.5. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from mao_datamgmt.settings import About

METADATA = "ro-crate-metadata.json"
CONTEXTS = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
_CRATE = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_STATUS = {
    True: "http://schema.org/CompletedActionStatus",
    False: "http://schema.org/FailedActionStatus",
}
_MANAGER = "https://github.com/serviceprototypinglab/mao-orchestrator"
_MEDIA_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "png": "image/png",
    "pdf": "application/pdf",
}


Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CrateFile:
    """A file in the crate. `size` is in bytes; `swhid` identifies content that is in git."""

    path: str
    size: int
    sha256: str
    swhid: str | None = None


@dataclass(frozen=True, slots=True)
class CrateStep:
    """One execution of a tool.

    `record` is the step's record, as the snapshot's commit contains it under `mao`. `commit` and `tree` are
    ids of the snapshot, None for a step that published nothing.
    """

    record: dict[str, Any]
    succeeded: bool
    ended_at: str
    error: str | None = None
    commit: str | None = None
    tree: str | None = None
    inputs: Sequence[CrateFile] = ()
    outputs: Sequence[CrateFile] = ()
    log: CrateFile | None = None


@dataclass(frozen=True, slots=True)
class CrateRun:
    """The run that a crate describes. `published` is the time of the export in ISO 8601."""

    id: str
    pipeline: str
    node: str
    published: str
    about: About
    steps: Sequence[CrateStep] = field(default_factory=list)
    document: CrateFile | None = None


def describe(run: CrateRun) -> Entity:
    """Return the content of `ro-crate-metadata.json`."""
    about = run.about
    organisation: Entity = {
        "@id": about.ror or "#organisation",
        "@type": "Organization",
        "name": about.organisation or f"Operators of the node {run.node}",
        # The profile requires an address; without one, the node's name serves as an identifier.
        "url": about.ror or f"urn:mao:node:{quote(run.node)}",
    }
    person: Entity = {
        "@id": about.orcid or "#operator",
        "@type": "Person",
        "name": about.person,
        "affiliation": _ref(organisation["@id"]),
    }
    licence = _licence(about.licence)
    entities: dict[str, Entity] = {agent["@id"]: agent for agent in (person, organisation)}
    for index, step in enumerate(run.steps):
        for entity in _step_entities(run, index, step, person["@id"]):
            entities.setdefault(entity["@id"], entity)
    if run.document is not None:
        entity = _file(run.document, "The run's document, as MAO Orchestrator keeps it")
        entities[entity["@id"]] = entity
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Run {run.id} of the pipeline {run.pipeline}",
        "description": f"Inputs, outputs, logs and record of a run of {run.pipeline} on the node {run.node}.",
        "identifier": run.id,
        "datePublished": run.published,
        "license": _ref(licence["@id"]),
        "conformsTo": _ref(_PROFILE),
        "author": _ref(person["@id"]),
        "publisher": _ref(organisation["@id"]),
        "hasPart": [_ref(entity["@id"]) for entity in entities.values() if entity["@type"] == "File"],
        "mentions": [_ref(_action_id(index)) for index in range(len(run.steps))],
    }
    profile = {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _ref("./"),
        "conformsTo": _ref(_CRATE),
    }
    graph = [descriptor, root, profile, licence, *entities.values()]
    return {"@context": CONTEXTS, "@graph": [_compact(entity) for entity in graph]}


def _compact(entity: Entity) -> Entity:
    """Drop empty lists and replace lists of one item by the item, as RO-Crate recommends."""
    unwrapped = {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value
        for key, value in entity.items()
    }
    return {key: value for key, value in unwrapped.items() if value != []}


def _ref(name: str) -> Entity:
    return {"@id": name}


def _licence(licence: str | None) -> Entity:
    if licence is not None and re.match(r"https?://", licence):
        return {
            "@id": licence,
            "@type": "CreativeWork",
            "name": licence.rstrip("/").rpartition("/")[2],
            "description": f"The licence at {licence}",
        }
    text = licence or "No licence was given; all rights are reserved"
    return {"@id": "#licence", "@type": "CreativeWork", "name": text, "description": text}


def _action_id(index: int) -> str:
    return f"#step-{index}"


def _step_entities(run: CrateRun, index: int, step: CrateStep, agent: str) -> list[Entity]:
    """Return a step's action, tool, image, environment variables and files."""
    record = step.record
    name = record["step"]
    log = [] if step.log is None else [step.log]
    files = [_file(file, f"Input of the step {name}") for file in step.inputs]
    files += [_file(file, f"Written by the step {name}") for file in step.outputs]
    files += [_file(file, f"Log of the step {name}", "text/plain") for file in log]
    variables: list[Entity] = [
        {"@id": f"#env-{index}-{quote(key)}", "@type": "PropertyValue", "name": key, "value": value}
        for key, value in sorted(record.get("env", {}).items())
    ]
    image = _image(record["image"])
    tool = _tool(record, image["@id"])

    # The command is taken from the record, where secrets are masked.
    command = " ".join(record.get("command") or []) or "the image's own command"
    source = record.get("input") or {}
    from_input = f" Input: {source['dataset']} at commit {source['commit']}." if source.get("commit") else ""
    times: dict[str, str] = record.get("times") or {}
    started = times.get("running") or times.get("starting") or min(times.values(), default=step.ended_at)
    identifiers = [f"swh:1:rev:{step.commit}"] if step.commit else []
    identifiers += [f"swh:1:dir:{step.tree}"] if step.tree else []
    action: Entity = {
        "@id": _action_id(index),
        "@type": "CreateAction",
        "name": f"Step {name} of {run.pipeline}, attempt {record.get('attempt', 1)}",
        "description": f"Ran {command} in {record['image']['name']}. "
        f"Output: {record['output']['dataset']}.{from_input}",
        "agent": _ref(agent),
        "startTime": _time(started),
        "endTime": _time(step.ended_at),
        "actionStatus": _STATUS[step.succeeded],
        "object": [_ref(quote(file.path)) for file in step.inputs],
        "result": [_ref(quote(file.path)) for file in (*step.outputs, *log)],
        "error": [step.error] if step.error is not None and not step.succeeded else [],
        "identifier": identifiers,
        "instrument": _ref(tool["@id"]),
        "containerImage": _ref(image["@id"]),
        "environment": [_ref(variable["@id"]) for variable in variables],
    }
    return [action, tool, image, *variables, *files]


def _time(iso: str) -> str:
    """Format a time with a numeric offset, the only format that the profile's validator accepts."""
    time = datetime.fromisoformat(iso)
    return time.isoformat(timespec="milliseconds" if time.microsecond else "seconds")


def _tool(record: dict[str, Any], image_id: str) -> Entity:
    return {
        "@id": f"{_MANAGER}#tool-{quote(record['tool'])}",
        "@type": "SoftwareApplication",
        "name": record["tool"],
        "description": f"The tool {record['tool']}, a container image run by MAO Orchestrator",
        "softwareRequirements": _ref(image_id),
        "version": record["image"]["pinned"],
        "url": _ref(_MANAGER),
    }


def _image(image: dict[str, str]) -> Entity:
    """Describe an image by its digest. An image built on the node has no registry."""
    repository, _, tag = image["name"].partition("@")[0].rpartition(":")
    if not repository or "/" in tag:  # the colon precedes a port, or there is none
        repository, tag = image["name"].partition("@")[0], "latest"
    host, slash, rest = repository.partition("/")
    has_registry = slash and ("." in host or ":" in host or host == "localhost")
    return {
        "@id": f"#image-{quote(image['pinned'], safe=':@')}",
        "@type": "ContainerImage",
        "additionalType": _ref("https://w3id.org/ro/terms/workflow-run#DockerImage"),
        "registry": host if has_registry else "docker.io",
        "name": rest if has_registry else repository,
        "tag": tag,
        "sha256": image["pinned"].rpartition("sha256:")[2],
        "description": f"{image['pinned']} ({image['platform']})",
    }


def _file(file: CrateFile, description: str, media_type: str | None = None) -> Entity:
    suffix = file.path.rpartition(".")[2].lower()
    entity: Entity = {
        "@id": quote(file.path),
        "@type": "File",
        "name": file.path.rpartition("/")[2],
        "description": description,
        "contentSize": str(file.size),
        "sha256": file.sha256,
        "encodingFormat": media_type or _MEDIA_TYPES.get(suffix, "application/octet-stream"),
    }
    return entity | ({"identifier": file.swhid} if file.swhid else {})
