"""Who has a say in a dataset's ground truth: the members that declare that they take part in it.

Nobody can say so for another: a part lies under its node's own prefix, and who is a member only core nodes
may write. The dataset's record, which any member can write, decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from mao_shared import keys
from mao_shared.conditions import Conditions
from mao_shared.models import Identity
from mao_shared.reconcile import Mirror
from mao_shared.store import Entry, Records, Store, Unreadable

from .peer_records import Heard, part_of, read_part


class Voters:
    """As this node last saw them, also while the federation is away. `members` has to run beside this."""

    def __init__(
        self,
        federation: Store,
        heard: Heard,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        identities = Records(federation, keys.identities_prefix(), Identity, unreadable)
        self.members: Mirror[Identity] = Mirror(identities, conditions=conditions)
        self.heard = heard
        self._store = federation

    async def known(self) -> None:
        """Returns when `seen` has an answer."""
        await self.members.synced.wait()
        await self.heard.mirror.synced.wait()

    def seen(self, dataset: str) -> list[str] | None:
        """The nodes, sorted; None while it was not listed yet who takes part."""
        if not (self.members.synced.is_set() and self.heard.mirror.synced.is_set()):
            return None
        identities = {name: stored.record for name, stored in self.members.items()}
        return voters(self.heard.parts(dataset), identities)

    async def ask(self, dataset: str) -> list[str]:
        """The same, read now, or from the copies while the federation is away. Raises Unavailable."""
        identities = await self.members.records.by_name()
        if identities:
            found = await asyncio.gather(
                *(self._store.get(keys.part(node, dataset)) for node in sorted(identities))
            )
        else:
            found = [*(await self._store.list(keys.all_peers())).entries]
        return voters(_declaring(found, dataset), identities)


def voters(declaring: Iterable[str], identities: Mapping[str, Identity]) -> list[str]:
    """Pure. A store without identities has no members to tell from others: a node alone, or a plain etcd."""
    joined = {node for node, each in identities.items() if each.node == node and each.state == "joined"}
    return sorted(node for node in set(declaring) if node in joined or not identities)


def _declaring(entries: Sequence[Entry | None], dataset: str) -> list[str]:
    places = [
        part_of(each.key.removeprefix(keys.all_peers()))
        for each in entries
        if each is not None and read_part(each) is not None
    ]
    return [place[1] for place in places if place is not None and place[0] == dataset]
