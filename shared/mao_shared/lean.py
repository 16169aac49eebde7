"""Imports a library without what it takes along just because that is installed.

structlog and httpx each load rich, which the services never use: 4 MB in each of a node's processes when
maoctl shares their environment (measured as private memory; in the service images rich is not installed).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Within the block, packages that are not loaded yet cannot be imported."""
    hidden = [name for name in packages if name not in sys.modules]
    # None makes the import system raise ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
