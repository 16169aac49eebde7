"""A native node shared by all end-to-end tests that leave it intact."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import NativeNode, native_node

# The data's contact: without it, crates lack properties that the profile recommends.
PROVENANCE = {
    "MAO_PERSON_NAME": "Ada Example",
    "MAO_ORCID": "0000-0002-1825-0097",
    "MAO_ORGANISATION": "Example Institute",
    "MAO_ROR": "https://ror.org/03yrm5c26",
    "MAO_LICENCE": "https://creativecommons.org/licenses/by/4.0/",
}


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeNode]:
    """Run a native node, and check at the end that it stops cleanly."""
    with native_node(tmp_path_factory.mktemp("node"), env=PROVENANCE) as node:
        yield node
