"""A native node whose pages are read in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import NativeNode, native_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a native node; tests give what they make their own names."""
    with native_node(tmp_path_factory.mktemp("pages")) as node:
        yield node
