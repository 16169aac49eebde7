"""What a list call answers."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

Item = TypeVar("Item")


class Listing(BaseModel, Generic[Item]):
    """`items` in key order; `cursor` for the next page, null on the last one."""

    items: list[Item]
    cursor: str | None = None
