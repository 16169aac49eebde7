"""One native node for all end-to-end tests that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import NativeNode, native_node

# Who answers for the data: without it, crates lack what the profile recommends.
PROVENANCE = {
    "MAO_PERSON_NAME": "Ada Example",
    "MAO_ORCID": "0000-0002-1825-0097",
    "MAO_ORGANISATION": "Example Institute",
    "MAO_ROR": "https://ror.org/03yrm5c26",
    "MAO_LICENCE": "https://creativecommons.org/licenses/by/4.0/",
}


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """A running native node; stopped, and checked to stop cleanly, at the end."""
    with native_node(tmp_path_factory.mktemp("node"), env=PROVENANCE) as node:
        yield node
