"""Tables of catalogues: their entries, what an installation needs, the configured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maoctl.output import Column, TableView

if TYPE_CHECKING:
    from mao_shared.models.catalogue import CatalogueEntry, CatalogueSource, InstallItem


def obstacles(entry: CatalogueEntry) -> list[str]:
    """Return what prevents an installation, in a few words each."""
    return entry.faults + [f"{item.kind} {item.name} {item.state}" for item in entry.items if item.blocks]


ENTRY: TableView[CatalogueEntry] = TableView(
    "catalogue-entry",
    [
        Column("NAME", lambda entry, _: entry.name, keep_whole=True),
        Column("STATE", lambda entry, _: entry.state, keep_whole=True),
        Column("MISSING", lambda entry, _: obstacles(entry)),
        Column("DESCRIPTION", lambda entry, _: entry.description, spare=1),
        Column("KIND", lambda entry, _: entry.kind, wide=True),
        Column("TITLE", lambda entry, _: entry.title, wide=True),
        Column("SOURCE", lambda entry, _: entry.source, wide=True),
        Column("CRON", lambda entry, _: entry.cron, wide=True),
        Column("CONTACTS", lambda entry, _: entry.contacts, wide=True),
        Column("NOTES", lambda entry, _: entry.notes, wide=True),
    ],
    lambda entry: entry.name,
)
ITEM: TableView[InstallItem] = TableView(
    "item",
    [
        Column("KIND", lambda item, _: item.kind, keep_whole=True),
        Column("NAME", lambda item, _: item.name, keep_whole=True),
        Column("STATE", lambda item, _: item.state, keep_whole=True),
        Column("DETAIL", lambda item, _: ". ".join(filter(None, [item.detail, *item.changes])), fold=True),
    ],
    lambda item: item.name,
)
SOURCE: TableView[CatalogueSource] = TableView(
    "catalogue-source",
    [
        Column("NAME", lambda source, _: source.name, keep_whole=True),
        Column("LOCATION", lambda source, _: source.location),
        Column("ENTRIES", lambda source, _: source.entries),
        Column("FAULT", lambda source, _: source.fault),
    ],
    lambda source: source.name,
)
