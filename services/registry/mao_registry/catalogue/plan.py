"""What an installation of a catalogue's entry would register here, and what is missing for it. Pure.

Tools and datasets that a pipeline names are looked for on the node first, then in the catalogue, then in what
the operator gives. A record that is registered and says something else is never changed unasked. Of a tool,
only what determines its runs is compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from mao_registry.consent.definition import requested_privileges
from mao_registry.consent.enrolments import same_definition
from mao_registry.records.rules import title_clash
from mao_shared.models import Dataset, Named, Pipeline, Record, Step, Tool
from mao_shared.models.catalogue import CatalogueEntry, EntryState, InstallChoices, InstallItem, ItemState
from mao_shared.models.common import drop_unknown_fields
from mao_shared.models.secret import SecretRef
from mao_shared.models.tool import asked_words

from .entries import Catalogue, Entry

MAX_VALUE = 100  # characters of a value in a description of a change
COMPARED = ("image", "command", "env", "limits", "network", "privileges", "secrets")
"""Fields of a tool that determine its runs."""
IN_COMMAND = "asks for a secret in its command, which others can read: only variables may have one"


@dataclass(frozen=True)
class Known:
    """What the node has. `granted`: (tool, privilege) pairs by pipeline; `images`: whether each is here,
    and `secrets` their names; None if the runner did not answer."""

    tools: Mapping[str, Tool] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    enrolled: Set[str] = frozenset()
    granted: Mapping[str, Set[tuple[str, str]]] = field(default_factory=dict)
    images: Mapping[str, bool | None] = field(default_factory=dict)
    secrets: Set[str] | None = None


@dataclass(frozen=True)
class NewDataset:
    """A dataset to register. `master`: its remote; None: a repository to be made on this node."""

    name: str
    master: str | None
    described: Dataset | None = None

    def record(self, master: str) -> Dataset:
        if self.described is None:
            return Dataset(name=self.name, master=master)
        return self.described.model_copy(update={"master": master, "nodes": []})


@dataclass
class Plan:
    """The items in the order in which they are made, and the records to write."""

    entry: Entry
    items: list[InstallItem] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)  # to be created
    replaced_tools: list[Tool] = field(default_factory=list)
    datasets: list[NewDataset] = field(default_factory=list)
    pipeline: Pipeline | None = None
    replaces_pipeline: bool = False
    enrols: bool = False
    images: list[str] = field(default_factory=list)

    def add(self, kind: Any, name: str, state: ItemState, detail: str = "", **more: Any) -> None:
        self.items.append(InstallItem(kind=kind, name=name, state=state, detail=detail, **more))

    @property
    def blocking(self) -> list[InstallItem]:
        return [item for item in self.items if item.blocks]

    @property
    def state(self) -> EntryState:
        if self.entry.kind == "federations":
            return "information"
        if self.entry.faults or any(item.state == "refused" for item in self.items):
            return "unusable"
        if self.blocking:
            return "incomplete"
        changes = {"created", "replaced"}
        return "ready" if any(item.state in changes for item in self.items) else "installed"


def make_plan(entry: Entry, catalogue: Catalogue, known: Known, choices: InstallChoices) -> Plan:
    """Return what installing the entry with these choices would do."""
    plan = Plan(entry)
    if entry.faults:
        plan.add("field", entry.name, "refused", "; ".join(entry.faults))
    elif isinstance(entry.record, Pipeline):
        _plan_pipeline(plan, entry.record, catalogue, known, choices)
    elif entry.kind == "tools":
        _plan_tool(plan, entry.name, catalogue, known, choices)
        _plan_images(plan, known, choices)
    elif entry.kind == "datasets":
        _plan_dataset(plan, entry.name, catalogue, known, choices)
    return plan


def _plan_pipeline(
    plan: Plan, wanted: Pipeline, catalogue: Catalogue, known: Known, choices: InstallChoices
) -> None:
    present = known.pipelines.get(wanted.name)
    pipeline = _compare_pipeline(plan, wanted, present, choices)
    if pipeline is None:
        return
    names = dict.fromkeys(step.tool for step in pipeline.steps)
    tools = [_plan_tool(plan, name, catalogue, known, choices) for name in names]
    for name in dict.fromkeys(_datasets(pipeline.steps)):
        _plan_dataset(plan, name, catalogue, known, choices)
    _plan_images(plan, known, choices)
    for variable in plan.entry.variables:
        plan.add("variable", variable.name, "refused", f"step {variable.where} {IN_COMMAND}")
    refs = [ref for tool in tools if tool for ref in tool.secrets]
    _plan_secrets(plan, [*refs, *(ref for step in pipeline.steps for ref in step.secrets)], known)
    plan.enrols = wanted.name not in known.enrolled or plan.replaces_pipeline
    if plan.enrols:
        _plan_privileges(plan, pipeline, [tool for tool in tools if tool], known, choices)
        plan.add("enrolment", wanted.name, "created", "this node takes part")
    else:
        plan.add("enrolment", wanted.name, "unchanged")


def _datasets(steps: Iterable[Step]) -> list[str]:
    return [name for step in steps for name in (step.input_dataset, step.dataset) if name]


def _compare_pipeline(
    plan: Plan, wanted: Pipeline, present: Pipeline | None, choices: InstallChoices
) -> Pipeline | None:
    """Add the pipeline's item; return the pipeline that will be registered, None if its name is taken."""
    if present is None:
        plan.pipeline = wanted
        plan.add("pipeline", wanted.name, "created", _steps(wanted))
        return wanted
    if clash := title_clash(wanted, present):
        plan.add("pipeline", wanted.name, "refused", clash.detail)
        return None
    if same_definition(drop_unknown_fields(present), wanted):
        plan.pipeline = present
        plan.add("pipeline", wanted.name, "unchanged")
        return present
    changes = pipeline_changes(present, wanted)
    if choices.existing == "replace":
        plan.pipeline, plan.replaces_pipeline = wanted, True
        plan.add("pipeline", wanted.name, "replaced", changes=changes)
        return wanted
    _differs(plan, "pipeline", wanted.name, changes, choices)
    plan.pipeline = present
    return present


def _steps(pipeline: Pipeline) -> str:
    return ", ".join(f"{step.tool} → {step.dataset}" for step in pipeline.steps)


def _differs(plan: Plan, kind: str, name: str, changes: list[str], choices: InstallChoices) -> None:
    if choices.existing == "keep":
        plan.add(kind, name, "kept", "it stays as it is registered", changes=changes)
        return
    plan.add(
        kind,
        name,
        "differs",
        "it is registered, and differs from the catalogue",
        changes=changes,
        next="Use what is registered: --keep; or what the catalogue says: --replace",
    )


def _plan_tool(
    plan: Plan, name: str, catalogue: Catalogue, known: Known, choices: InstallChoices
) -> Tool | None:
    """Add a tool's item and its image; return the tool that the pipeline will use, None if there is none."""
    entry, present, image = catalogue.find("tools", name), known.tools.get(name), choices.images.get(name)
    wanted = _wanted_tool(name, entry, image)
    if wanted is None and present is None:
        why = f" (the catalogue's is unusable: {'; '.join(entry.faults)})" if entry else ""
        plan.add(
            "tool",
            name,
            "missing",
            f"it is neither registered here nor in the catalogue{why}",
            next=f"Give its image: --image {name}=IMAGE; or register it: maoctl tool add {name} AUTHOR IMAGE",
        )
        return None
    used = _compare_tool(plan, name, wanted, present, choices)
    if present is None and entry is not None:
        for variable in entry.variables:
            plan.add("variable", variable.name, "refused", f"tool {name} {IN_COMMAND}")
    plan.images += [] if used.image in plan.images else [used.image]
    return used


def _wanted_tool(name: str, entry: Entry | None, image: str | None) -> Tool | None:
    described = entry.record if entry and isinstance(entry.record, Tool) else None
    if image is None:
        return described
    return described.model_copy(update={"image": image}) if described else Tool(name=name, image=image)


def _compare_tool(
    plan: Plan, name: str, wanted: Tool | None, present: Tool | None, choices: InstallChoices
) -> Tool:
    if present is None:
        if wanted is None:
            raise ValueError(f"there is no tool {name!r} to compare")
        plan.tools.append(wanted)
        plan.add("tool", name, "created", f"image {wanted.image}")
        return wanted
    changes = _tool_changes(present, wanted) if wanted else {}
    if wanted is None or not changes:
        plan.add("tool", name, "unchanged")
        return present
    if choices.existing == "replace":
        replaced = present.model_copy(update={key: getattr(wanted, key) for key in changes})
        plan.replaced_tools.append(replaced)
        plan.add("tool", name, "replaced", changes=list(changes.values()))
        return replaced
    _differs(plan, "tool", name, list(changes.values()), choices)
    return present


def _tool_changes(present: Tool, wanted: Tool) -> dict[str, str]:
    """Return the differences by field, of those that the catalogue gives."""
    given = wanted.model_fields_set
    before = drop_unknown_fields(present)
    return {
        key: _change(key, getattr(before, key), getattr(wanted, key))
        for key in COMPARED
        if key in given and getattr(before, key) != getattr(wanted, key)
    }


def pipeline_changes(present: Pipeline, wanted: Pipeline) -> list[str]:
    """Describe how two pipelines differ, a line for each field."""
    before, after = (
        {step.name: step for step in one.steps} for one in (drop_unknown_fields(present), wanted)
    )
    changes = [f"step {name} is gone" for name in before if name not in after]
    changes += [f"step {name} is new" for name in after if name not in before]
    if [name for name in before if name in after] != [name for name in after if name in before]:
        changes.append(f"order of the steps: {', '.join(after)}")
    if present.overlap != wanted.overlap:
        changes.append(_change("overlap", present.overlap, wanted.overlap))
    for name in after:
        if name in before:
            changes += _record_changes(f"step {name}: ", before[name], after[name])
    return changes


def _record_changes(prefix: str, before: Record, after: Record) -> list[str]:
    fields = type(after).model_fields
    pairs = [(key, getattr(before, key), getattr(after, key)) for key in fields]
    return [f"{prefix}{_change(key, old, new)}" for key, old, new in pairs if old != new]


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name}: {_text(before)} → {_text(after)}"


def _text(value: Any) -> str:
    plain = value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, Record) else value
    text = "none" if plain is None or plain in ({}, [], "") else ascii(plain)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _plan_dataset(plan: Plan, name: str, catalogue: Catalogue, known: Known, choices: InstallChoices) -> None:
    entry, present, given = (
        catalogue.find("datasets", name),
        known.datasets.get(name),
        choices.datasets.get(name),
    )
    described = entry.record if entry and isinstance(entry.record, Dataset) else None
    master = given or (described.master if described else None)
    if present is not None:
        if master is None or master == present.master:
            plan.add("dataset", name, "unchanged")
        else:
            _dataset_differs(plan, name, present.master, master, choices)
        return
    if master is None and not choices.local:
        plan.add(
            "dataset",
            name,
            "missing",
            "it is not registered here",
            next=f"Give its remote: --dataset {name}=URL; or make it on this node: --local",
        )
        return
    plan.datasets.append(NewDataset(name, master, described))
    plan.add("dataset", name, "created", f"at {master}" if master else "made on this node")


def _dataset_differs(plan: Plan, name: str, present: str, master: str, choices: InstallChoices) -> None:
    """A registered dataset is never moved to another remote: its branches are at the one it has."""
    changes = [_change("master", present, master)]
    if choices.existing == "keep":
        plan.add("dataset", name, "kept", "it stays as it is registered", changes=changes)
        return
    plan.add(
        "dataset",
        name,
        "differs",
        "it is registered with another remote, which an installation never changes",
        changes=changes,
        next=f"Use it as it is: --keep; or move it: maoctl dataset update {name} --master URL",
    )


def _plan_images(plan: Plan, known: Known, choices: InstallChoices) -> None:
    for image in plan.images:
        here = known.images.get(image)
        if here:
            plan.add("image", image, "unchanged", "it is on this machine")
        elif here is None:
            plan.add("image", image, "unknown", "the runner did not say whether it is on this machine")
        elif choices.pull == "never":
            plan.add(
                "image",
                image,
                "missing",
                "it is not on this machine",
                next=f"Build or pull it: docker pull {image}",
            )
        else:
            plan.add("image", image, "pulled", "it is not on this machine; the installation pulls it")


def _plan_secrets(plan: Plan, refs: Iterable[SecretRef], known: Known) -> None:
    for name, ref in {ref.secret: ref for ref in refs}.items():
        if known.secrets is None:
            plan.add("secret", name, "unknown", "the runner did not say whether it is set")
        elif name in known.secrets:
            plan.add("secret", name, "unchanged", f"given in {ref.target}")
        else:
            step = f"Set it: maoctl secret set {name}"
            plan.add("secret", name, "missing", f"asked for in {ref.target}", next=step)


def _plan_privileges(
    plan: Plan, pipeline: Pipeline, tools: list[Tool], known: Known, choices: InstallChoices
) -> None:
    granted = known.granted.get(pipeline.name, frozenset())
    for tool, word in requested_privileges(tools, pipeline.steps):
        asks = f"tool {tool} asks for {asked_words([word])}"
        if word in choices.agree or (tool, word) in granted:
            plan.add("privilege", word, "granted", asks)
        else:
            plan.add("privilege", word, "missing", asks, next=f"Grant it on this node: --agree '{word}'")


def entry_digest(entry: Entry, catalogue: Catalogue) -> str:
    """Return a digest (128 bits) of all that a catalogue says about an entry and what it names."""
    named: list[Entry | None] = [entry]
    if isinstance(entry.record, Pipeline):
        steps = entry.record.steps
        named += [catalogue.find("tools", name) for name in sorted({step.tool for step in steps})]
        named += [catalogue.find("datasets", name) for name in sorted(set(_datasets(steps)))]
    records = [one.record.model_dump(mode="json") for one in named if one is not None and one.record]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()[:32]


def shown_entry(
    catalogue: Catalogue, entry: Entry, plan: Plan, *, definition: bool = False
) -> CatalogueEntry:
    """Return an entry with its plan, as the API shows it. `definition`: also the record to be registered."""
    record: Named | None = plan.pipeline or entry.record
    return CatalogueEntry(
        kind=entry.kind,
        name=entry.name,
        title=entry.title,
        description=entry.description,
        source=catalogue.source,
        state=plan.state,
        faults=list(entry.faults),
        notes=list(entry.notes),
        items=[item for item in plan.items if item.kind != "field"],
        cron=entry.cron,
        timezone=entry.timezone,
        contacts=list(entry.contacts),
        definition=record.model_dump(mode="json", exclude_unset=True) if definition and record else None,
        digest=entry_digest(entry, catalogue),
    )
