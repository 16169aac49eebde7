"""The federation's store as the services see it: which one is current, and what is known while it is away.

A node alone is its own federation: its store holds all. When it joins one, its registry writes a `Link` into
the node's store, and every service goes over to the federation's etcd without a restart.
"""

from __future__ import annotations

from .resolver import FederationFiles
from .store import FederationStore, federation_store

__all__ = ["FederationFiles", "FederationStore", "federation_store"]
