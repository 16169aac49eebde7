"""State behind one contract (`protocol.py`): etcd for real, `memory.py` as its twin for tests."""

from .protocol import Batch, Check, Delete, Entry, Event, Page, Put, Store, Write
from .records import Records, Stored

__all__ = ["Batch", "Check", "Delete", "Entry", "Event", "Page", "Put", "Records", "Store", "Stored", "Write"]
