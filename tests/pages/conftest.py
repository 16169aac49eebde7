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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow more time than others have: a page is looked at in two widths and schemes."""
    for item in items:
        if item.nodeid.startswith("tests/pages/") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))
