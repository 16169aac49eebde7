"""Pure: the metadata of a crate, RO-Crate 1.1 with the profile Process Run Crate 0.5, as JSON-LD."""

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
_MEDIA = {
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
    """A file in the crate. `size` in bytes; `swhid`: of its content, where git has it."""

    path: str
    size: int
    sha256: str
    swhid: str | None = None


@dataclass(frozen=True, slots=True)
class CrateStep:
    """One execution of a tool. `record`: what the commit has under `mao`, or would have had.

    `commit`, `tree`: of the snapshot; None for a step that published nothing.
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
    """The run that a crate describes. `published`: ISO time at which the crate was made."""

    id: str
    pipeline: str
    node: str
    published: str
    about: About
    steps: Sequence[CrateStep] = field(default_factory=list)
    document: CrateFile | None = None


def describe(run: CrateRun) -> Entity:
    """The whole of `ro-crate-metadata.json`."""
    people = _agents(run.about, run.node)
    agent = people[0]["@id"]
    entities: dict[str, Entity] = {person["@id"]: person for person in people}
    actions = []
    for index, step in enumerate(run.steps):
        for entity in _step_entities(run, index, step, agent):
            entities.setdefault(entity["@id"], entity)
        actions.append(_ref(_action_id(index)))
    if run.document is not None:
        entity = _file(run.document, "The run's document, as MAO Orchestrator keeps it")
        entities[entity["@id"]] = entity
    files = [_ref(entity["@id"]) for entity in entities.values() if entity["@type"] == "File"]
    licence = _licence(run.about.licence)
    profile = {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": _ref("./"),
        "conformsTo": _ref(_CRATE),
    }
    head = [descriptor, _root(run, files, actions, licence["@id"], people), profile, licence]
    return {"@context": CONTEXTS, "@graph": [_compact(entity) for entity in (*head, *entities.values())]}


def _compact(entity: Entity) -> Entity:
    """Without empty lists, and with lists of one replaced by their item, as RO-Crate recommends."""
    alone = {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value
        for key, value in entity.items()
    }
    return {key: value for key, value in alone.items() if value != []}


def _ref(name: str) -> Entity:
    return {"@id": name}


def _root(
    run: CrateRun, files: list[Entity], actions: list[Entity], licence: str, people: list[Entity]
) -> Entity:
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Run {run.id} of the pipeline {run.pipeline}",
        "description": f"Inputs, outputs, logs and record of a run of {run.pipeline} on the node {run.node}.",
        "identifier": run.id,
        "datePublished": run.published,
        "license": _ref(licence),
        "conformsTo": _ref(_PROFILE),
        "author": _ref(people[0]["@id"]),
        "publisher": _ref(people[-1]["@id"]),
        "hasPart": files,
        "mentions": actions,
    }


def _agents(about: About, node: str) -> list[Entity]:
    """The person and the organisation, which is named after the node unless it is given."""
    organisation: Entity = {
        "@id": about.ror or "#organisation",
        "@type": "Organization",
        "name": about.organisation or f"Operators of the node {node}",
        # The profile asks for an address; without one the node's name is at least an identifier.
        "url": about.ror or f"urn:mao:node:{quote(node)}",
    }
    person: Entity = {
        "@id": about.orcid or "#operator",
        "@type": "Person",
        "name": about.person,
        "affiliation": _ref(organisation["@id"]),
    }
    return [person, organisation]


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
    record = step.record
    files = [_file(file, f"Input of the step {record['step']}") for file in step.inputs]
    files += [_file(file, f"Written by the step {record['step']}") for file in step.outputs]
    if step.log is not None:
        files.append(_file(step.log, f"Log of the step {record['step']}", "text/plain"))
    variables = [_variable(index, name, value) for name, value in sorted(record.get("env", {}).items())]
    image, tool = _image(record["image"]), _tool(record)
    action = _action(run, index, step, agent)
    action["instrument"] = _ref(tool["@id"])
    action["containerImage"] = _ref(image["@id"])
    if variables:
        action["environment"] = [_ref(variable["@id"]) for variable in variables]
    return [action, tool, image, *variables, *files]


def _action(run: CrateRun, index: int, step: CrateStep, agent: str) -> Entity:
    record = step.record
    results = [*step.outputs, *([step.log] if step.log is not None else [])]
    times: dict[str, str] = record.get("times") or {}
    started = times.get("running") or times.get("starting") or min(times.values(), default=step.ended_at)
    action: Entity = {
        "@id": _action_id(index),
        "@type": "CreateAction",
        "name": f"Step {record['step']} of {run.pipeline}, attempt {record.get('attempt', 1)}",
        "description": _description(step),
        "agent": _ref(agent),
        "startTime": _time(started),
        "endTime": _time(step.ended_at),
        "actionStatus": _STATUS[step.succeeded],
        "object": [_ref(_id(file.path)) for file in step.inputs],
        "result": [_ref(_id(file.path)) for file in results],
    }
    if step.error is not None and not step.succeeded:
        action["error"] = step.error
    names = [f"swh:1:rev:{step.commit}"] if step.commit else []
    names += [f"swh:1:dir:{step.tree}"] if step.tree else []
    return action | ({"identifier": names} if names else {})


def _description(step: CrateStep) -> str:
    """A description, with the command as the record has it (secrets masked)."""
    record = step.record
    command = " ".join(record.get("command") or []) or "the image's own command"
    inputs = record.get("input") or {}
    from_input = f" Input: {inputs['dataset']} at commit {inputs['commit']}." if inputs.get("commit") else ""
    output = record["output"]
    return f"Ran {command} in {record['image']['name']}. Output: {output['dataset']}.{from_input}"


def _time(iso: str) -> str:
    """With a numeric offset, the only form that the profile's validator accepts."""
    moment = datetime.fromisoformat(iso)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def _tool(record: dict[str, Any]) -> Entity:
    image = record["image"]
    return {
        "@id": f"{_MANAGER}#tool-{quote(record['tool'])}",
        "@type": "SoftwareApplication",
        "name": record["tool"],
        "description": f"The tool {record['tool']}, a container image run by MAO Orchestrator",
        "softwareRequirements": _ref(_image_id(image)),
        "version": image["pinned"],
        "url": _ref(_MANAGER),
    }


def _image_id(image: dict[str, str]) -> str:
    return f"#image-{quote(image['pinned'], safe=':@')}"


def _image(image: dict[str, str]) -> Entity:
    """The image by its digest; an image built on the node has no registry."""
    repository, _, tag = image["name"].partition("@")[0].rpartition(":")
    if not repository or "/" in tag:  # the colon was a port's, or there was none
        repository, tag = image["name"].partition("@")[0], "latest"
    host, slash, rest = repository.partition("/")
    named = slash and ("." in host or ":" in host or host == "localhost")
    return {
        "@id": _image_id(image),
        "@type": "ContainerImage",
        "additionalType": _ref("https://w3id.org/ro/terms/workflow-run#DockerImage"),
        "registry": host if named else "docker.io",
        "name": rest if named else repository,
        "tag": tag,
        "sha256": image["pinned"].rpartition("sha256:")[2],
        "description": f"{image['pinned']} ({image['platform']})",
    }


def _variable(index: int, name: str, value: str) -> Entity:
    return {
        "@id": f"#env-{index}-{quote(name)}",
        "@type": "PropertyValue",
        "name": name,
        "value": value,
    }


def _id(path: str) -> str:
    return quote(path)


def _file(file: CrateFile, description: str, media: str | None = None) -> Entity:
    suffix = file.path.rpartition(".")[2].lower()
    entity: Entity = {
        "@id": _id(file.path),
        "@type": "File",
        "name": file.path.rpartition("/")[2],
        "description": description,
        "contentSize": str(file.size),
        "sha256": file.sha256,
        "encodingFormat": media or _MEDIA.get(suffix, "application/octet-stream"),
    }
    return entity | ({"identifier": file.swhid} if file.swhid else {})
