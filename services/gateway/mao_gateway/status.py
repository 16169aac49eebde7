"""How this node stands with its federation, as its own store has it; never waits for the federation."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from mao_shared import keys
from mao_shared.errors import MaoError
from mao_shared.models import Record, Timestamp
from mao_shared.models.common import STORED
from mao_shared.models.federation import Contact, Link
from mao_shared.store import Store

R = TypeVar("R", bound=Record)


class FederationStatus(BaseModel):
    """`reachable` is None until the registry has tried. A federation that is away leaves the node ready."""

    name: str
    reachable: bool | None = None
    removed: bool = Field(default=False, description="It has struck this node off; it will not come back")
    since: Timestamp | None = Field(default=None, description="When it last answered, if it does not now")
    reason: str = Field(default="", description="Why it does not answer")
    next: str = Field(default="", description="What to do about that")
    as_of: Timestamp | None = Field(default=None, description="When what is known of it was last true")


async def federation_status(store: Store, node: str, seconds: float) -> FederationStatus | None:
    """None for a node that stands alone, and where its store does not answer within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            link = await _read(store, keys.link(node), Link)
            contact = await _read(store, keys.contact(node), Contact)
    except (MaoError, TimeoutError):
        return None
    return describe(link, contact)


def describe(link: Link | None, contact: Contact | None) -> FederationStatus | None:
    """Pure: a contact with another federation than the link's tells nothing of this one."""
    if link is not None and (contact is None or contact.federation != link.id):
        return FederationStatus(name=link.federation)
    if contact is None:
        return None
    return FederationStatus(
        name=contact.federation if link is None else link.federation,
        reachable=contact.reachable,
        removed=contact.removed,
        # Not when this was noticed, which is later: what is read from copies is told to be as old as this.
        since=None if contact.reachable else contact.as_of or contact.away_since,
        reason=contact.reason,
        next=contact.next,
        as_of=contact.as_of,
    )


async def _read(store: Store, key: str, model: type[R]) -> R | None:
    entry = await store.get(key)
    try:
        return None if entry is None else model.model_validate_json(entry.value, context=STORED)
    except ValidationError:  # another version's
        return None
