"""What a list call answers."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field

from mao_shared.errors import RecordUnreadable

Item = TypeVar("Item")


class UnreadableItem(BaseModel):
    """A record of the list that cannot be read: why, and what to do about it."""

    name: str
    key: str
    unreadable: str
    next: str


class Listing(BaseModel, Generic[Item]):
    """`items` in key order; `cursor` for the next page, null on the last one.

    `unreadable`: what lies among the items and cannot be read; absent when there is nothing of the kind.
    """

    items: list[Item]
    cursor: str | None = None
    unreadable: list[UnreadableItem] = Field(default_factory=list, exclude_if=lambda found: not found)


def unreadable_items(found: list[RecordUnreadable]) -> list[UnreadableItem]:
    """As the API shows them."""
    return [
        UnreadableItem(
            name=each.key.rpartition("/")[2], key=each.key, unreadable=each.why, next=each.next or ""
        )
        for each in found
    ]
