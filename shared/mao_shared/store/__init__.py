"""Stores with one contract (`protocol.py`): etcd, and an in-memory twin for tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from .endpoints import CALL_TIMEOUT, TlsFiles
from .etcd_auth import Grant
from .protocol import (
    Batch,
    Check,
    Delete,
    Entry,
    Event,
    Examinable,
    Page,
    Put,
    Store,
    StoreHealth,
    Write,
)
from .records import Records, Stored, StoredPage, dump, pages, retry_lost
from .unreadable import Unreadable

if TYPE_CHECKING:
    from .etcd import EtcdStore
    from .etcd_admin import Admin

__all__ = [
    "Batch",
    "Check",
    "Delete",
    "Entry",
    "Event",
    "Examinable",
    "Grant",
    "Page",
    "Put",
    "Records",
    "Store",
    "StoreHealth",
    "Stored",
    "StoredPage",
    "TlsFiles",
    "Unreadable",
    "Write",
    "dump",
    "load_etcd",
    "open_admin",
    "open_store",
    "pages",
    "retry_lost",
]

# Read by gRPC on import: its log would bypass ours, and its fork handlers crash child processes.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def open_store(
    endpoints: str,
    *,
    deadline: float = CALL_TIMEOUT,
    tls: TlsFiles | None = None,
    observe: Callable[[str, float], None] | None = None,
) -> Store:
    """Return the store on etcd at `host:port[,…]` or `unix:///path`; it connects with its first call.

    Needs a running event loop. `deadline`: seconds for one call. `tls`: the client certificate, whose common
    name is the etcd user. `observe`: called with `read` or `write` and the seconds of each call. Raises
    ValueError for other addresses, StoreUnavailable (`store-credentials`) if
    the files cannot be read.
    """
    observer = {} if observe is None else {"observe": observe}
    return load_etcd()(endpoints, deadline=deadline, tls=tls, **observer)


def open_admin(endpoints: str, tls: TlsFiles, *, deadline: float = CALL_TIMEOUT) -> Admin:
    """Return a client for etcd's users, roles and members; see `etcd_admin.Admin`."""
    from .etcd_admin import Admin

    return Admin(endpoints, tls, deadline=deadline)


def load_etcd() -> type[EtcdStore]:
    """Import the etcd store on first use, since gRPC takes 17 MB."""
    from .etcd import EtcdStore

    return EtcdStore
