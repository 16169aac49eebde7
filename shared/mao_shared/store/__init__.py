"""State behind one contract (`protocol.py`): etcd for real, `memory.py` as its twin for tests."""

from __future__ import annotations

import os
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

# gRPC reads these when it is imported: its own log bypasses ours, its fork handlers crash children.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def open_store(endpoints: str, *, deadline: float = CALL_TIMEOUT, tls: TlsFiles | None = None) -> Store:
    """Return the store on etcd at `host:port[,…]` or `unix:///path`; connects with its first call.

    Needs a running event loop. `deadline`: seconds that one call may take. With `tls` the caller is the etcd
    user that its certificate names. Raises ValueError for other addresses, StoreUnavailable
    (`store-credentials`) when the files cannot be read.
    """
    return load_etcd()(endpoints, deadline=deadline, tls=tls)


def open_admin(endpoints: str, tls: TlsFiles, *, deadline: float = CALL_TIMEOUT) -> Admin:
    """Return the administration of etcd's users, roles and members; see `etcd_admin.Admin`."""
    from .etcd_admin import Admin

    return Admin(endpoints, tls, deadline=deadline)


def load_etcd() -> type[EtcdStore]:
    """Import the etcd store late, to spare other callers the 17 MB of gRPC."""
    from .etcd import EtcdStore

    return EtcdStore
