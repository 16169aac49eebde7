"""Reading the history of a value for the page of a dataset: again only when a branch has moved.

A page that keeps itself current is loaded after every event of a run, and the history of a value in a large
file takes seconds to read. It depends on nothing but the commit at which it begins, so it is kept by commit.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic

from mao_gateway.pages.node_api import NodeApi, path_of
from mao_shared.errors import MaoError, Unavailable
from mao_shared.models.common import STORED
from mao_shared.models.dataset import ValueVersion

from . import view
from .view import BranchHistory, ValueQuestion

MAX_VERSIONS = 200  # of a value, on each branch
HISTORY_SECONDS = 8.0  # to read them: large files take longer, which a page does not wait for
RETRY_SECONDS = 60.0  # after which a history is asked for again that could not be read
MAX_KEPT = 8


class Histories:
    """The last histories that were read, by dataset, value and commit; errors are kept for a short time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str, str, str], tuple[float, BranchHistory]] = OrderedDict()

    async def read(
        self, api: NodeApi, name: str, asked: ValueQuestion, branch: str, commit: str
    ) -> BranchHistory:
        """Return the versions of a value on a branch, up to a commit, or why there are none."""
        key = (name, commit, asked.file, asked.key, asked.field)
        at, found = self._kept.get(key, (0.0, None))
        if found is None or (found.error is not None and monotonic() - at > RETRY_SECONDS):
            found = await _follow(api, name, asked, branch, commit)
            self._kept[key] = monotonic(), found
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return BranchHistory(branch, found.versions, found.error)  # several branches may be at one commit


_histories = Histories()


async def read_histories(
    api: NodeApi, name: str, asked: ValueQuestion, tips: Mapping[str, str]
) -> list[BranchHistory]:
    """Return the versions of a value on each branch. `tips`: branch → commit."""
    if not asked.is_asked:
        return []
    return list(
        await asyncio.gather(
            *(_histories.read(api, name, asked, branch, tip) for branch, tip in tips.items())
        )
    )


async def _follow(api: NodeApi, name: str, asked: ValueQuestion, branch: str, commit: str) -> BranchHistory:
    query = {"file": asked.file, "key": asked.key, "field": asked.field, "limit": MAX_VERSIONS}
    try:
        async with asyncio.timeout(HISTORY_SECONDS):
            text = await api.text(path_of("datasets", name, "history"), branch=commit, **query)
    except TimeoutError:
        detail = f"To read the versions takes longer than {HISTORY_SECONDS:.0f} s: the file is large."
        return BranchHistory(branch, (), Unavailable(detail, next="Use the command below."))
    except MaoError as error:
        return BranchHistory(branch, (), error)
    versions = view.parse_versions(text, lambda line: ValueVersion.model_validate_json(line, context=STORED))
    return BranchHistory(branch, versions)
