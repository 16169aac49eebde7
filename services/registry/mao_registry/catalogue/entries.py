"""The entries of a catalogue as records of this system, each with what is wrong with it. Pure.

An entry is a stranger's text. It is checked by the model of its kind, as a record registered by hand is. What
the original's catalogues say in other words is translated; `notes` say what that changes, and `faults` what
makes an entry unusable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mao_shared.git_urls import local_path
from mao_shared.models import Dataset, Named, Pipeline, Tool, is_name
from mao_shared.models.catalogue import CATALOGUE_KINDS, CatalogueContent, CatalogueKind
from mao_shared.models.common import MAX_NAME
from mao_shared.models.pipeline import fill_title, normalize_title
from mao_shared.models.tool import flatten_body
from mao_shared.problems import field_errors

MAX_ENTRY = 64 << 10  # characters of an entry as JSON
MAX_FAULTS = 5
MAX_SHOWN = 60  # characters of a text that is not accepted
PRIVATE_VARIABLE = re.compile(r"\{\{\s*MAO_PRIVATE_VARIABLE\s*\}\}")
"""Placeholder of the original's catalogues for a secret value."""
ABOUT = frozenset(
    {"authors", "contact", "contacts", "homepage", "icon", "id", "keywords", "license", "licence", "tags"}
    | {"maintainer", "maintainers", "updated", "url", "version", "website"}
)
"""Fields that describe an entry and do not change what it does; they are dropped."""
_SCHEDULE = ("cron", "schedule", "timezone")
_TEXT = ("author", "data_repo", "code_repo", "artefact", "description")
"""Fields of tools that catalogues leave empty with null."""
Fields = dict[str, Any]
_CONTACTS: TypeAdapter[list[str]] = TypeAdapter(
    Annotated[list[Annotated[str, Field(max_length=320)]], Field(max_length=50)]
)
_DESCRIPTION: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(max_length=10_000)])


@dataclass(frozen=True)
class Variable:
    """A place for a secret that cannot be filled in. `where`: the step or the tool."""

    where: str
    name: str


@dataclass(frozen=True)
class Entry:
    """An entry. `record` is None if it is unusable, and for federations and datasets without a remote.

    `variables`: where it asks for a secret in a way that is not supported.
    """

    kind: CatalogueKind
    name: str
    title: str | None = None
    description: str = ""
    record: Named | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    cron: str | None = None
    timezone: str | None = None
    contacts: tuple[str, ...] = ()
    words: str = ""  # text to search, in lower case


@dataclass(frozen=True)
class Catalogue:
    """The entries of one source, in its order."""

    source: str
    entries: tuple[Entry, ...]
    _by_name: Mapping[tuple[str, str], Entry] = field(init=False)

    def __post_init__(self) -> None:
        first: dict[tuple[str, str], Entry] = {}
        for entry in self.entries:
            first.setdefault((entry.kind, entry.name), entry)
        object.__setattr__(self, "_by_name", first)

    def find(self, kind: CatalogueKind, name: str) -> Entry | None:
        """Return the entry of this name or title; the first, if there are several."""
        found = self._by_name.get((kind, name))
        if found is not None:
            return found
        return next((entry for entry in self.entries if (entry.kind, entry.title) == (kind, name)), None)


def read_catalogue(source: str, content: CatalogueContent) -> Catalogue:
    """Return the checked entries of a catalogue; a name that occurs twice is only usable once."""
    entries: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    for kind in CATALOGUE_KINDS:
        for index, raw in enumerate(getattr(content, kind)):
            entry = read_entry(kind, raw, f"{kind}[{index}]")
            if (kind, entry.name) in seen:
                entry = _unusable(kind, f"{kind}[{index}]", [f"the name {entry.name!r} is used twice"])
            seen.add((kind, entry.name))
            entries.append(entry)
    return Catalogue(source, tuple(entries))


def read_entry(kind: CatalogueKind, raw: Any, position: str) -> Entry:
    """Return an entry; one that cannot be used is called by its name if it has one, or by its position."""
    if not isinstance(raw, dict):
        return _unusable(kind, position, ["it is not an object"])
    name = raw.get("name")
    if fault := _text_fault(raw):
        return _unusable(kind, _label(name, position), [fault])
    fields = {key: value for key, value in flatten_body(raw).items() if key not in ABOUT}
    fields = {key: value for key, value in fields.items() if not (key in _TEXT and value is None)}
    try:
        return _READERS[kind](fields | ({"contacts": raw.get("contacts")} if kind == "federations" else {}))
    except ValidationError as error:
        return _unusable(kind, _label(name, position), _faults(error), raw)
    except ValueError as error:
        return _unusable(kind, _label(name, position), [str(error)], raw)


def _text_fault(raw: Fields) -> str | None:
    """Return why an entry cannot be kept or shown as JSON, whatever it says."""
    try:
        text = json.dumps(raw, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        return "it has numbers or characters that JSON does not have, or is nested too deeply"
    if len(text) > MAX_ENTRY:
        return f"it has more than {MAX_ENTRY} characters"
    return "it has a NUL character" if "\\u0000" in text else None


def _unusable(kind: CatalogueKind, name: str, faults: list[str], raw: Fields | None = None) -> Entry:
    described = raw.get("description") if raw else None
    description = described[:200] if isinstance(described, str) else ""
    return Entry(kind, name, description=description, faults=tuple(faults), words=name.casefold())


def _label(name: Any, position: str) -> str:
    """Return how to call an entry that is unusable: its name if that is a text on one line."""
    if not isinstance(name, str):
        return position
    try:
        title = normalize_title(name)
    except ValueError:
        return position
    return title if len(title) <= MAX_SHOWN else f"{title[:MAX_SHOWN]}…"


def _faults(error: ValidationError) -> list[str]:
    """Return the first faults that pydantic found, without the values."""
    found = []
    for fault in field_errors(error.errors(include_url=False)):
        message = "is not supported here" if fault["message"] == "is not a known field" else fault["message"]
        found.append(f"{_shown(fault['field'])}: {_shown(message, 300)}")
    more = [f"and {len(found) - MAX_FAULTS} more"] if len(found) > MAX_FAULTS else []
    return found[:MAX_FAULTS] + more


def _shown(text: str, most: int = 100) -> str:
    """Return a stranger's text on one line of limited length."""
    line = text if text.isprintable() else ascii(text)[1:-1]
    return line if len(line) <= most else f"{line[:most]}…"


# The kinds


def _read_pipeline(fields: Fields) -> Entry:
    schedule = {name: fields.pop(name) for name in _SCHEDULE if name in fields}
    fields = fill_title(fields)
    steps = fields.get("steps")
    notes: list[str] = []
    if isinstance(steps, list):
        fields["steps"] = [
            _translate_program(step, step.get("tool"), notes) if isinstance(step, dict) else step
            for step in steps
        ]
    pipeline = Pipeline.model_validate(fields)
    cron, timezone, more = _read_schedule(schedule)
    variables = [Variable(step.name, "(command)") for step in pipeline.steps if asks_in_command(step.command)]
    tools = " ".join(f"{step.tool} {step.dataset}" for step in pipeline.steps)
    return Entry(
        "pipelines",
        pipeline.name,
        pipeline.title,
        pipeline.description,
        pipeline,
        notes=(*notes, *more),
        variables=tuple(variables),
        cron=cron,
        timezone=timezone,
        words=f"{pipeline.called} {pipeline.description} {tools}".casefold(),
    )


def _translate_program(fields: Fields, tool: Any, notes: list[str]) -> Fields:
    """Return the fields of a step or tool with variables as text, and secrets in place of placeholders."""
    if "env" not in fields:
        return fields
    where = str(fields.get("name") or tool)
    env, secrets = _translate_env(fields["env"], where, notes), []
    if isinstance(env, dict):
        private = {name: text for name, text in env.items() if _is_private(text)}
        env = {name: text for name, text in env.items() if name not in private}
        secrets = [{"secret": secret_name(str(tool), name), "env": name} for name in private]
        for name, text in private.items():
            if not PRIVATE_VARIABLE.fullmatch(text.strip()):
                notes.append(f"{_shown(where)}: all of {_shown(name)} is asked for, as {_shown(text)!r}")
    given = fields.get("secrets")
    return {**fields, "env": env} | ({"secrets": [*(given or []), *secrets]} if secrets else {})


def _is_private(text: Any) -> bool:
    return isinstance(text, str) and PRIVATE_VARIABLE.search(text) is not None


def secret_name(tool: str, variable: str) -> str:
    """Return the name of the secret for a variable with the placeholder: `crawler-api-key`."""
    words = re.findall(r"[a-z0-9]+", f"{tool} {variable}".casefold())
    return "-".join(words)[:MAX_NAME].strip("-") or "secret"


def _translate_env(env: Any, where: str, notes: list[str]) -> Any:
    """Return variables as text, as the original's engine was given them; `["A=b"]` is a map too."""
    if isinstance(env, list) and env and all(isinstance(item, str) and "=" in item for item in env):
        return dict(item.split("=", 1) for item in env)
    if not isinstance(env, dict):
        return env
    converted = {name: str(value) for name, value in env.items() if isinstance(value, bool | int | float)}
    for name, text in converted.items():
        notes.append(f"{_shown(where)}: the variable {_shown(str(name))} becomes the text {text!r}")
    return {**env, **converted}


def asks_in_command(command: list[str] | None) -> bool:
    """Return True if a command has the placeholder for a secret, where it cannot be filled in."""
    return any(PRIVATE_VARIABLE.search(word) for word in command or [])


def _read_schedule(given: Fields) -> tuple[str | None, str | None, list[str]]:
    """Return the proposed cron string and zone, and what to know about them."""
    cron = given.get("cron") or given.get("schedule")
    if cron is None:
        return None, None, []
    if not isinstance(cron, str) or len(cron) > 200 or not cron.isprintable():
        return None, None, ["the proposed schedule is not a cron string, and is dropped"]
    zone = given.get("timezone")
    timezone = zone if isinstance(zone, str) and len(zone) <= 64 and zone.isprintable() else None
    parts = cron.split()
    notes = []
    if len(parts) == 5 and any(digit in parts[4] for digit in "01234567"):
        notes.append(
            f"the proposed schedule {cron!r} counts weekdays: 0 is Sunday here, as in crontab, "
            "and was Monday in the original"
        )
    return cron, timezone, notes


def _read_tool(fields: Fields) -> Entry:
    notes: list[str] = []
    name = fields.get("name")
    if isinstance(name, str) and not is_name(name):
        raise ValueError(
            f"name: {_shown(name)!r} is not the name of a tool: use letters, digits, '.', '_', '-'"
        )
    fields = _translate_program(fields, name, notes)
    if "cmd" in fields and "command" not in fields:  # the word of steps
        fields["command"] = fields.pop("cmd")
    tool = Tool.model_validate(fields)
    variables = [Variable(tool.name, "(command)")] if asks_in_command(tool.command) else []
    words = f"{tool.name} {tool.description} {tool.author} {tool.artefact} {tool.image}".casefold()
    return Entry(
        "tools",
        tool.name,
        description=tool.description,
        record=tool,
        notes=tuple(notes),
        variables=tuple(variables),
        words=words,
    )


def _read_dataset(fields: Fields) -> Entry:
    """Read a dataset; without a remote it only has a description, and the operator gives the remote."""
    fields.pop("nodes", None)  # those of others
    has_remote = bool(fields.get("master"))
    dataset = Dataset.model_validate(fields if has_remote else {**fields, "master": "/"})
    if has_remote and local_path(dataset.master) is not None:
        raise ValueError("master: a catalogue cannot name a folder of this machine")
    return Entry(
        "datasets",
        dataset.name,
        description=dataset.description,
        record=dataset if has_remote else None,
        words=f"{dataset.name} {dataset.description}".casefold(),
    )


def _read_federation(fields: Fields) -> Entry:
    title = normalize_title(str(fields.get("name", "")))
    description = _DESCRIPTION.validate_python(fields.get("description") or "")
    contacts = _CONTACTS.validate_python(fields.get("contacts") or [])
    named = fill_title({"name": title})
    return Entry(
        "federations",
        named["name"],
        named.get("title"),
        description,
        contacts=tuple(_shown(contact, 320) for contact in contacts),
        words=f"{title} {description}".casefold(),
    )


_READERS = {
    "pipelines": _read_pipeline,
    "tools": _read_tool,
    "datasets": _read_dataset,
    "federations": _read_federation,
}
