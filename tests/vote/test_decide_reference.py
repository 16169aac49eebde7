"""The default vote on published data and figures."""

from __future__ import annotations

import random

from bench.truth.figure7 import correct

from mao_shared.models.round import VoteDefinition
from mao_vote import decide_file
from tests.support.evidence import shared_data


def test_decide_file_ground_truth_of_three_equal_nodes_is_their_file() -> None:
    folder = shared_data() / "dcc-bench2000"
    versions = {path.stem: path.read_bytes() for path in folder.glob("node*.csv")}
    assert len(versions) == 3
    found = decide_file("2000.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})
    assert found.content == versions["node1"]
    assert not found.cells
    lines = versions["node2"].splitlines(keepends=True)
    broken = b"".join(lines[:5] + lines[6:]).replace(b"artifact7,307", b"artifact7,999")
    found = decide_file(
        "2000.csv", versions | {"node2": broken}, incumbent=None, definition=VoteDefinition(), weights={}
    )
    assert found.content == versions["node1"]
    assert found.votes["node2"].differing == 2


def test_decide_file_figure_7_where_the_published_voters_reach_47_percent() -> None:
    """The whole figure: `python -m bench truth`."""
    assert correct(0.4, 0.3, random.Random(20261124), rounds=1000) >= 99
