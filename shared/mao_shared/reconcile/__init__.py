"""Background work: loops, mirrors of records, controllers, leases."""

from .controller import Controller
from .loops import (
    STORE_BACKOFF,
    Backoff,
    Guard,
    background,
    every,
    follow,
    in_halves,
    until_done,
    wait_at_most,
)
from .mirror import Mirror, recheck_unreadable
from .session import Session

__all__ = [
    "STORE_BACKOFF",
    "Backoff",
    "Controller",
    "Guard",
    "Mirror",
    "Session",
    "background",
    "every",
    "follow",
    "in_halves",
    "recheck_unreadable",
    "until_done",
    "wait_at_most",
]
