"""Lists a catalogue's entries with what is missing here, and installs them.

An installation first makes sure of all that can fail outside: images are pulled and remotes are asked. Only
then does it write, in this order: repositories on this node, datasets, tools, the pipeline with the
enrolment. Each write is the one of registering by hand, and an equal record counts as written, so repeating
an installation that was interrupted completes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mao_registry.consent.agreements import Agreements
from mao_registry.consent.enrolments import Enrolments, Terms
from mao_registry.node_services import NodeServices
from mao_registry.records.collection import Collection
from mao_registry.records.stores import Repositories
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound, Unavailable
from mao_shared.models import Dataset, Pipeline, PipelineInit, Tool
from mao_shared.models.catalogue import (
    CatalogueContent,
    CatalogueEntry,
    CatalogueKind,
    InstallChoices,
    InstallItem,
    InstallRequest,
)

from .entries import Catalogue, Entry, read_catalogue
from .plan import Known, Plan, entry_digest, make_plan, shown_entry
from .sources import Sources

SENT = "(in the request)"  # the source of entries that a caller sent
MAX_LOOKUPS = 8  # images that the runner is asked about at the same time


@dataclass(frozen=True)
class Found:
    entry: Entry
    catalogue: Catalogue


class Installer:
    """Plans and makes installations on this node."""

    def __init__(
        self,
        sources: Sources,
        repositories: Repositories,
        tools: Collection[Tool],
        datasets: Collection[Dataset],
        pipelines: Collection[Pipeline],
        enrolments: Enrolments,
        agreements: Agreements,
        services: NodeServices,
    ) -> None:
        self.sources = sources
        self.repositories = repositories
        self.tools = tools
        self.datasets = datasets
        self.pipelines = pipelines
        self.enrolments = enrolments
        self.agreements = agreements
        self.services = services

    async def show_all(self, found: Sequence[Found], choices: InstallChoices) -> list[CatalogueEntry]:
        """Return entries with what an installation would do, for a list."""
        known = await self._known(found, choices)
        return [
            shown_entry(one.catalogue, one.entry, make_plan(one.entry, one.catalogue, known, choices))
            for one in found
        ]

    async def show(self, found: Found, choices: InstallChoices) -> CatalogueEntry:
        """Return an entry with its record and what an installation would do."""
        plan = await self._make_plan(found, choices)
        return shown_entry(found.catalogue, found.entry, plan, definition=True)

    async def install(self, request: InstallRequest) -> CatalogueEntry:
        """Install an entry; return what was done.

        Before anything is written, raises InvalidInput (`catalogue-incomplete`) if something is missing, and
        Conflict (`catalogue-changed`) if the entry was shown otherwise. Also raises the errors of registering
        by hand.
        """
        found = await self.find(request.kind, request.name, request.source, request.catalogue)
        if request.digest not in (None, entry_digest(found.entry, found.catalogue)):
            raise Conflict(
                f"The catalogue now says something else about {found.entry.name!r} than what was shown.",
                code="catalogue-changed",
                next=f"See what it says now, then install it again: maoctl catalogue show {found.entry.name}",
            )
        plan = await self._make_plan(found, request)
        if plan.blocking:
            raise _incomplete(found.entry, plan.blocking)
        if plan.state != "installed":
            await self._prepare(plan, request)
            await self._write(plan, request)
        shown = shown_entry(found.catalogue, found.entry, plan, definition=True)
        return shown.model_copy(update={"state": "installed"})

    async def find(
        self, kind: CatalogueKind, name: str, source: str | None, content: CatalogueContent | None = None
    ) -> Found:
        """Return the entry of a name or title in the content sent, or in the configured catalogues.

        Raises NotFound, InvalidInput (`catalogue-ambiguous`), and the errors of the sources.
        """
        errors: dict[str, MaoError] = {}
        if content is not None:
            catalogues = [await asyncio.to_thread(read_catalogue, SENT, content)]
        elif source is not None:
            catalogues = [await self.sources.read(source)]
        else:
            catalogues, errors = await self.sources.read_all()
        pairs = [(catalogue.find(kind, name), catalogue) for catalogue in catalogues]
        found = [Found(entry, catalogue) for entry, catalogue in pairs if entry is not None]
        if len(found) > 1:
            names = ", ".join(one.catalogue.source for one in found)
            raise InvalidInput(
                f"Several catalogues have {name!r}: {names}.",
                code="catalogue-ambiguous",
                next="Name one: --source NAME (in the API: `source`).",
            )
        if found:
            return found[0]
        if errors:
            raise next(iter(errors.values()))
        raise NotFound(
            f"No catalogue has {name!r} among its {kind}.", next="See what there is: maoctl catalogue list"
        )

    # What the node has

    async def _make_plan(self, found: Found, choices: InstallChoices) -> Plan:
        known = await self._known([found], choices)
        plan = make_plan(found.entry, found.catalogue, known, choices)
        plan.items += self._refused(plan)
        return plan

    def _refused(self, plan: Plan) -> Iterator[InstallItem]:
        """Yield what the rules of registering by hand refuse."""
        for tool in plan.tools + plan.replaced_tools:
            try:
                self.tools.rules.check(tool)
            except InvalidInput as error:
                yield InstallItem(kind="tool", name=tool.name, state="refused", detail=error.detail)
        for new in plan.datasets:
            try:
                if new.master is not None:
                    self.datasets.rules.check(new.record(new.master))
            except InvalidInput as error:
                yield InstallItem(kind="dataset", name=new.name, state="refused", detail=error.detail)

    async def _known(self, found: Sequence[Found], choices: InstallChoices) -> Known:
        tools, datasets, pipelines, enrolments = await asyncio.gather(
            self.repositories.tools.by_name(),
            self.repositories.datasets.by_name(),
            self.repositories.pipelines.by_name(),
            self.repositories.enrolments.by_name(),
        )
        granted = {}
        names = [one.entry.name for one in found if one.entry.kind == "pipelines"]
        for name in names:
            if name in enrolments and (agreement := await self.agreements.find(name)) is not None:
                granted[name] = agreement.granted
        before = Known(tools, datasets, pipelines, frozenset(enrolments), granted)
        plans = [make_plan(one.entry, one.catalogue, before, choices) for one in found]
        images = await self._look_up({image for plan in plans for image in plan.images})
        secrets: frozenset[str] | None = frozenset()
        if any(item.kind == "secret" for plan in plans for item in plan.items):
            try:
                secrets = frozenset(await self.services.secret_names())
            except Unavailable:
                secrets = None
        return Known(tools, datasets, pipelines, frozenset(enrolments), granted, images, secrets)

    async def _look_up(self, images: set[str]) -> dict[str, bool | None]:
        """Return which images are on this machine; None for those that the runner does not tell."""
        slots = asyncio.Semaphore(MAX_LOOKUPS)

        async def is_here(image: str) -> bool | None:
            async with slots:
                try:
                    await self.services.resolve_image(image, "never")
                except Unavailable:
                    return None
                except MaoError:
                    return False
                return True

        names = sorted(images)
        return dict(zip(names, await asyncio.gather(*map(is_here, names)), strict=True))

    # Doing it

    async def _prepare(self, plan: Plan, choices: InstallChoices) -> None:
        """Pull the images and ask the remotes.

        Raises InvalidInput, or Unavailable, that names all that failed.
        """
        errors: list[tuple[str, MaoError]] = []
        for image in plan.images:
            try:
                await self.services.resolve_image(image, choices.pull)
            except MaoError as error:
                errors.append((f"image {image}", error))
        for new in plan.datasets:
            if new.master is not None:
                try:
                    await self.services.check_remote(new.master)
                except MaoError as error:
                    errors.append((f"dataset {new.name}", error))
        if errors:
            _, first = errors[0]
            listed = "; ".join(f"{what}: {error.detail}" for what, error in errors)
            kind = Unavailable if isinstance(first, Unavailable) else InvalidInput
            raise kind(f"Nothing was installed. {listed}", code=first.code, next=first.next)

    async def _write(self, plan: Plan, choices: InstallChoices) -> None:
        for new in plan.datasets:
            master = new.master
            if master is None:
                master = (await self.services.make_repository(new.name)).master
            await self.datasets.create(new.record(master), name_was_free=True)
        for tool in plan.tools:
            await self.tools.create(tool, name_was_free=True)
        for tool in plan.replaced_tools:
            await self.tools.update(tool.name, tool, None)
        if plan.pipeline is None:
            return
        if plan.replaces_pipeline:
            await self.pipelines.update(plan.pipeline.name, plan.pipeline, None)
            await self.enrolments.renew_on(
                plan.pipeline.name, Terms(agree=choices.agree, pull=choices.pull), None
            )
        elif plan.enrols:
            wanted = plan.pipeline.model_dump(include={"name", "title", "description", "steps", "overlap"})
            body = PipelineInit.model_validate(wanted | {"agree": choices.agree, "pull": choices.pull})
            await self.enrolments.init(body, name_was_free=True)


def _incomplete(entry: Entry, blocking: Sequence[InstallItem]) -> InvalidInput:
    listed = "; ".join(f"{item.kind} {item.name}: {item.detail}" for item in blocking)
    steps = list(dict.fromkeys(item.next for item in blocking if item.next))
    return InvalidInput(
        f"Nothing of {entry.title or entry.name!r} was installed: {listed}.",
        code="catalogue-incomplete",
        next=" ".join(f"{step}." for step in steps) or "Choose another entry, or ask who publishes it.",
        items=[item.model_dump(mode="json", exclude_none=True) for item in blocking],
    )
