"""The federation's store: which etcd is current, and the replica that answers reads during an outage.

Without a federation, the node's own store holds everything. When the node joins one, its registry writes a
`Link` to the node's store, and every service switches to the federation's etcd without a restart.
"""

from __future__ import annotations

from .resolver import FederationFiles
from .store import FederationStore, federation_store

__all__ = ["FederationFiles", "FederationStore", "federation_store"]
