"""*Catalogue*: pipelines of others, what this node lacks for each, and their installation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse

from mao_gateway.pages.forms import carry_out, read_form
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.models.catalogue import CatalogueEntry, CatalogueSource, InstallItem

router = page_router()
CATALOGUE = "/ui/catalogue"
PAGE_ENTRIES = 50
VALUE_PREFIX = "secret-"  # of fields with the values of secrets, which are never shown again
MAX_LISTED = 6  # needs of one entry in a list
Text = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class Need:
    """Something that an installation adds, or that is missing. `colour` and `icon` as in `marks`."""

    colour: str
    icon: str
    text: str


_ADDED = {"tool": "will be registered", "dataset": "will be made here", "image": "will be pulled"}


def describe_needs(entry: CatalogueEntry) -> list[Need]:
    """Say in short what is missing here for an entry whose datasets may be made on the node. Pure."""
    if entry.state == "installed":
        return [Need("ok", "ok", "installed")]
    needs = [Need("bad", "failed", fault) for fault in entry.faults]
    needs += [Need("bad", "failed", _short(item)) for item in entry.items if item.state == "refused"]
    needs += [
        Need("warn", "attention", _short(item))
        for item in entry.items
        if item.state in ("missing", "differs")
    ]
    for kind in _ADDED:
        added = [
            item.name for item in entry.items if item.kind == kind and item.state in ("created", "pulled")
        ]
        if len(added) == 1:
            needs.append(Need("off", "info", f"{kind} {added[0]} {_ADDED[kind]}"))
        elif added:
            needs.append(Need("off", "info", f"{len(added)} {kind}s {_ADDED[kind]}"))
    return needs[:MAX_LISTED] or [Need("ok", "ok", "nothing missing")]


def _short(item: InstallItem) -> str:
    """Say in a few words why an item needs a person."""
    match item.kind:
        case "variable":
            return item.detail
        case "secret":
            return f"asks for the secret {item.name}"
        case "privilege":
            return f"asks for {item.name}"
        case _ if item.state == "differs":
            return f"{item.kind} {item.name}: another one is registered"
        case _:
            return f"{item.kind} {item.name}: {item.detail}"


@router.get(CATALOGUE)
async def list_entries(
    page: PageDep,
    q: Text = "",
    source: Text = "",
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> HTMLResponse:
    api = page.api
    filters = {"q": q or None, "source": source or None}
    entries, sources = await asyncio.gather(
        api.listing(
            "/catalogue",
            CatalogueEntry,
            kind="pipelines",
            local="true",
            limit=PAGE_ENTRIES,
            cursor=cursor,
            **filters,
        ),
        api.optional(api.listing("/catalogue/sources", CatalogueSource)),
    )
    return await page.render(
        "catalogue.html",
        section="Pipelines",
        title="Catalogue",
        entries=entries.items,
        unreadable=entries.unreadable,
        next_cursor=entries.cursor,
        first=cursor is None,
        sources=sources.items if sources else [],
        q=q,
        source=source,
        query=[(name, value) for name, value in filters.items() if value],
        describe_needs=describe_needs,
    )


@router.get(f"{CATALOGUE}/{{name}}")
async def show_entry(page: PageDep, name: str, source: Text = "") -> HTMLResponse:
    entry = await page.api.get(path_of("catalogue", "pipelines", name), CatalogueEntry, source=source or None)
    return await page.render(
        "catalogue_entry.html",
        section="Pipelines",
        title=entry.called,
        entry=entry,
        can_install=entry.state in ("ready", "incomplete"),
        asked=_asked(entry.items),
        typed=dict(page.message.fields) if page.message else {},
        line=install_line(entry),
    )


def _asked(items: Sequence[InstallItem]) -> dict[str, list[InstallItem]]:
    """Return the items that the form asks about, by what it asks for."""
    kinds = ("dataset", "tool", "secret", "privilege", "differs")
    asked: dict[str, list[InstallItem]] = {kind: [] for kind in kinds}
    given = {f"secret {item.name}" for item in items if item.kind == "secret" and item.state == "missing"}
    for item in items:
        if item.kind == "privilege" and item.name in given:
            continue  # whoever gives a secret agrees that the tool gets it
        if item.state == "differs":
            asked["differs"].append(item)
        elif item.state == "missing" and item.kind in asked:
            asked[item.kind].append(item)
    return asked


def install_line(entry: CatalogueEntry) -> str:
    """Return the command that installs an entry with datasets made on the node."""
    missing = any(item.kind == "dataset" and item.state != "unchanged" for item in entry.items)
    agree = [f" --agree '{item.name}'" for item in entry.items if item.kind == "privilege"]
    return f"maoctl catalogue install {entry.name}{' --local' if missing else ''}{''.join(agree)}"


@router.post(f"{CATALOGUE}/install")
async def post_install(page: PageDep) -> RedirectResponse:
    fields = await read_form(page.request)
    keys = [key for key in fields if key.startswith(VALUE_PREFIX)]
    values = {key.removeprefix(VALUE_PREFIX): fields.pop(key) for key in keys}
    name, source = fields.get("name", ""), fields.get("source")
    query = f"?{urlencode({'source': source})}" if source else ""
    return await carry_out(
        messages,
        _install(page, fields, values),
        done=f"{name} is installed. Run it once, or set a schedule.",
        then=f"/ui/welcome?{urlencode({'pipeline': name})}",
        otherwise=f"{CATALOGUE}{path_of(name)}{query}",
        form="install",
        fields=fields,
    )


async def _install(page: Page, fields: dict[str, str], values: dict[str, str]) -> Any:
    """Set the secrets, then install. Raises the errors of both."""
    for secret, value in sorted(values.items()):
        await page.api.send("PUT", path_of("secrets", secret), {"value": value})
    body = install_body(fields)
    body["agree"] += [f"secret {secret}" for secret in sorted(values)]
    return await page.api.send("POST", "/catalogue/install", body)


def install_body(fields: dict[str, str]) -> dict[str, Any]:
    """Return the body of an installation from the fields of a form. Pure."""
    datasets = {
        name: remote
        for name, remote in _numbered(fields, "dataset", "remote")
        if fields.get(f"where-{name}") == "remote"
    }
    body: dict[str, Any] = {"name": fields.get("name", ""), "local": True, "datasets": datasets}
    body["images"] = dict(_numbered(fields, "tool", "image"))
    body["agree"] = [word for key, word in sorted(fields.items()) if key.startswith("agree-")]
    if existing := fields.get("existing"):
        body["existing"] = existing
    body |= {name: fields[name] for name in ("source", "digest") if fields.get(name)}
    return body


def _numbered(fields: dict[str, str], kind: str, value: str) -> Sequence[tuple[str, str]]:
    """Return name and value of the fields `{value}-{name}` for the names that are `{kind}-…` fields."""
    names = [name for key, name in fields.items() if key.startswith(f"{kind}-")]
    return [(name, fields[f"{value}-{name}"]) for name in names if f"{value}-{name}" in fields]
