"""One native node for all end-to-end tests that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import NativeNode, native_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """A running native node; stopped, and checked to stop cleanly, at the end."""
    with native_node(tmp_path_factory.mktemp("node")) as node:
        yield node
