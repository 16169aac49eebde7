"""Tells when a branch at a remote went back: ground truth, or another node's, as after a restored backup.

Every node that fetches keeps what it has seen (`repository/known.py`), so that it is known here as well, and
not lost. This node's own branch is told by its push, which stops there (`deliver.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import mao_git
from mao_datamgmt import mao_datamgmt_provenance
from mao_datamgmt.context import Context
from mao_datamgmt.executor import Works
from mao_git import Clone, GoneBack
from mao_shared.conditions import Conditions
from mao_shared.errors import NotFound, Unavailable
from mao_shared.mao_shared_logs import get_logger
from mao_shared.models import GROUND_TRUTH
from mao_shared.reconcile import Guard, every
from mao_shared.reconcile.controller import WorkQueue

from .bare import dataset_names

log = get_logger(__name__)

NAME = "branch-went-back"
EVERY = 300.0  # seconds between two looks at all clones; one that was changed is looked at at once
SEARCHED = 20  # newest commits in which a node's branch shows that it is one


class Backwards:
    """Keeps the condition `branch-went-back` in step; subject: dataset/branch."""

    def __init__(self, context: Context, works: Works, conditions: Conditions) -> None:
        self._context = context
        self._works = works
        self._conditions = conditions
        self._guard = Guard("branches", conditions)
        self._queue = WorkQueue()
        self._told: dict[str, set[str]] = {}  # dataset → subjects that are reported
        works.changed.append(self._changed)

    async def _changed(self, datasets: list[str]) -> None:
        for dataset in datasets:
            self._queue.add(dataset)

    async def run(self) -> None:
        """Looks until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    every(EVERY, self._look_at_all, name="branches", conditions=self._conditions)
                )
                group.create_task(self._work())
        finally:
            self._queue.close()

    async def _look_at_all(self) -> None:
        datasets = set(await self._works.read(dataset_names, self._context.data))
        for dataset in datasets | self._told.keys():
            self._queue.add(dataset)

    async def _work(self) -> None:
        while True:
            dataset = await self._queue.take()
            try:
                with self._guard.item(dataset):
                    await self.look(dataset)
            except Unavailable as error:  # a broken clone is told as such
                log.warning("branches.not_looked_at", dataset=dataset, code=error.code)
            finally:
                self._queue.done(dataset)

    async def look(self, dataset: str) -> None:
        """Reports what went back of a dataset, and clears what is there again."""
        found = await self._works.read(went_back, self._context, dataset)
        subjects = {f"{dataset}/{back.branch}": (back, words) for back, words in found}
        for subject, (back, words) in subjects.items():
            self._conditions.report(NAME, subject, detail=words, next_step=_what_to_do(dataset, back))
        for subject in self._told.get(dataset, set()) - subjects.keys():
            self._conditions.clear(NAME, subject)
        if subjects:
            self._told[dataset] = set(subjects)
        else:
            self._told.pop(dataset, None)

    async def acknowledge(self, dataset: str, broken_clone: Callable[[str], Awaitable[None]]) -> None:
        """Takes what went back as it is, and says so of a broken clone as well.

        Raises what `broken_clone` raises, NotFound only when there was nothing of either.
        """
        kept = []
        if dataset in self._told:
            kept = await self._works.change([dataset], _accept, self._context, dataset)
            log.info("branches.acknowledged", dataset=dataset, kept=kept)
            await self.look(dataset)
        try:
            await broken_clone(dataset)
        except NotFound:
            if not kept:
                raise


def went_back(context: Context, dataset: str) -> list[tuple[GoneBack, str]]:
    """Branches of other nodes and ground truth that lack what they had, and that in words. Blocking."""
    try:
        clone = mao_git.open_clone(context.data.clone(dataset))
    except NotFound:  # it was set aside meanwhile
        return []
    return [
        (back, _in_words(clone, dataset, back))
        for back in mao_git.gone_back(clone)
        if back.branch == GROUND_TRUTH or (back.branch != context.node and _is_a_nodes(clone, back))
    ]


def _is_a_nodes(clone: Clone, back: GoneBack) -> bool:
    """Whether runs have committed to it: of other branches people may do what they like."""
    entries, _ = mao_git.list_log(clone, back.seen, SEARCHED)
    return any(mao_datamgmt_provenance.trailers(entry.message) for entry in entries)


def _in_words(clone: Clone, dataset: str, back: GoneBack) -> str:
    now = "is gone" if back.tip is None else f"is at {back.tip[:10]}"
    how = "went back to an earlier state" if back.is_earlier and back.tip else "was rewritten"
    if back.tip is None:
        how = "was removed"
    return (
        f"The branch {back.branch} of dataset {dataset} {how} at {clone.url}: it {now}, without {back.lost} "
        f"commits up to {back.seen[:10]} that it had. They are kept on this node as {back.kept_as}."
    )


def _what_to_do(dataset: str, back: GoneBack) -> str:
    replay = f"maoctl dataset resolve {dataset} --replay"
    where = replay if back.branch == GROUND_TRUTH else f"on {back.branch}: {replay}"
    return (
        f"If the git server was set back, say to a backup, bring them there again as they were; {where} . "
        f"If it was meant: maoctl dataset acknowledge {dataset} ."
    )


def _accept(context: Context, dataset: str) -> list[str]:
    clone = mao_git.open_clone(context.data.clone(dataset))
    return [
        mao_git.accept_as_seen(clone, back, context.clock.now())
        for back in mao_git.gone_back(clone)
        if back.branch != context.node
    ]
