"""Catalogues: pipelines, tools and datasets that others describe, and their installation on a node.

The form is that of the original's marketplace: lists of pipelines, tools and federations. Entries are
strangers' texts; each is checked by itself, so that a bad one does not hide the others.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .common import Name, OrNewer, Record
from .pipeline import Agreement, NameOrTitle, OptionalTitle, Pull
from .tool import Image

MAX_ENTRIES = 2000  # of one kind
MAX_CHOICES = 200
CatalogueKind = Literal["pipelines", "tools", "datasets", "federations"]
CATALOGUE_KINDS: tuple[CatalogueKind, ...] = ("pipelines", "tools", "datasets", "federations")
InstallableKind = Literal["pipelines", "tools", "datasets"]
RawEntries = Annotated[list[Any], Field(max_length=MAX_ENTRIES)]


class CatalogueContent(Record):
    """The entries of a catalogue as they were read; none is checked yet."""

    pipelines: RawEntries = Field(default_factory=list)
    tools: RawEntries = Field(default_factory=list)
    datasets: RawEntries = Field(default_factory=list)
    federations: RawEntries = Field(default_factory=list)


class CatalogueSource(Record):
    """A catalogue that the operator configured. `entries`: number of entries; None if it cannot be read."""

    name: str
    location: str
    entries: int | None = None
    fault: str | None = None
    next: str | None = None


ItemKind = Annotated[
    Literal["tool", "dataset", "pipeline", "enrolment", "image", "privilege", "secret", "variable", "field"],
    OrNewer,
]
ItemState = Annotated[
    Literal[
        "created",
        "unchanged",
        "kept",
        "replaced",
        "pulled",
        "granted",
        "differs",
        "missing",
        "refused",
        "unknown",
    ],
    OrNewer,
]
BLOCKING = frozenset({"differs", "missing", "refused"})
"""States of items that prevent an installation until something is given or changed."""


class InstallItem(Record):
    """One thing that an entry needs, and what an installation does, or did, about it.

    `state`: `created`, `replaced`, `pulled`, `granted`; `unchanged` (it is here as the catalogue has it);
    `kept` (it differs and stays as it is); `differs`, `missing`, `refused` (nothing is installed); `unknown`
    (a service did not answer). `changes`: how it differs. `next`: what to give.
    """

    kind: ItemKind
    name: str
    state: ItemState
    detail: str = ""
    changes: list[str] = Field(default_factory=list, max_length=1000)
    next: str | None = None

    @property
    def blocks(self) -> bool:
        return self.state in BLOCKING


EntryState = Annotated[Literal["installed", "ready", "incomplete", "unusable", "information"], OrNewer]


class CatalogueEntry(Record):
    """An entry of a catalogue, and what this node lacks for it.

    `state`: `installed`; `ready` (nothing has to be given); `incomplete` (`items` says what has to be given);
    `unusable` (`faults`, or an item that is refused); `information` (a federation, which is joined by
    invitation). `notes`: fields that mean something else here, or nothing. `cron`, `timezone`: the schedule
    that the entry proposes, which is not installed. `definition`: the record to be registered; not in lists.
    `digest`: of all that the catalogue says about the entry and the tools and datasets that it names.
    """

    kind: CatalogueKind
    name: str
    title: OptionalTitle = None
    description: str = ""
    source: str = ""
    state: EntryState
    faults: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    items: list[InstallItem] = Field(default_factory=list)
    cron: str | None = None
    timezone: str | None = None
    contacts: list[str] = Field(default_factory=list)
    definition: dict[str, Any] | None = None
    digest: str | None = None

    @property
    def called(self) -> str:
        """The title, or the name where there is none."""
        return self.title or self.name


Existing = Literal["refuse", "keep", "replace"]
GivenRemote = Annotated[str, Field(min_length=1, max_length=2000)]


class InstallChoices(Record):
    """What the operator gives for an installation.

    `datasets`: dataset → remote, for datasets that are not registered; `local`: make the others on this node.
    `images`: tool → image, for tools that are not registered. `existing`: what to do with records that are
    registered and differ. `agree`: privileges beyond the hardened default that the operator grants.
    """

    datasets: dict[Name, GivenRemote] = Field(
        default_factory=dict,
        max_length=MAX_CHOICES,
        examples=[{"performance": "git@git.example.org:mao/performance.git"}],
    )
    local: bool = False
    images: dict[Name, Image] = Field(
        default_factory=dict,
        max_length=MAX_CHOICES,
        examples=[{"system-performance": "mao-example/system-performance:1.0.0"}],
    )
    existing: Existing = "refuse"
    agree: Agreement = Field(default_factory=list)
    pull: Pull = "missing"


class InstallRequest(InstallChoices):
    """Body of `POST /catalogue/install` and `/catalogue/plan`: an entry, and what is given for it.

    `source`: a configured catalogue, needed if several have the entry; `catalogue`: entries sent by the
    caller in place of it. `digest`: of the entry as it was shown; another one is not installed.
    """

    name: NameOrTitle
    kind: InstallableKind = "pipelines"
    source: Name | None = None
    catalogue: CatalogueContent | None = None
    digest: str | None = Field(default=None, max_length=64)


class CatalogueSearch(Record):
    """Body of `POST /catalogue/inspect`: entries sent by the caller, and which of them to list."""

    catalogue: CatalogueContent
    kind: CatalogueKind | None = None
    q: str = Field(default="", max_length=200)
    local: bool = False
