"""Which dataset a key's values go to: the one whose record declares it."""

from __future__ import annotations

from mao_shared.errors import Conflict, MaoError, NotFound, Unavailable
from mao_shared.models import Dataset
from mao_shared.store import Records
from mao_shared.store.unreadable import CONDITION

PAGE = 500


class ExternalKeys:
    """Remembers what it has seen, for when the federation's store does not answer."""

    def __init__(self, datasets: Records[Dataset]) -> None:
        self._datasets = datasets
        self._seen: dict[str, Dataset] = {}

    async def dataset_of(self, key: str) -> Dataset:
        """Raises NotFound (`external-key-unknown`), Conflict (`external-key-ambiguous`), Unavailable."""
        declared = first_part(key)
        try:
            found = await self._known(declared) or chosen(key, await self._all())
        except Unavailable:
            if declared not in self._seen:
                raise
            return self._seen[declared]
        self._seen[declared] = found
        return found

    async def record(self, name: str) -> Dataset | None:
        """A dataset's record, as far as it can be told now."""
        try:
            stored = await self._datasets.get(name)
        except MaoError as error:
            if not isinstance(error, Unavailable) and error.code != CONDITION:
                raise
            return next((each for each in self._seen.values() if each.name == name), None)
        return None if stored is None else stored.record

    async def _known(self, key: str) -> Dataset | None:
        seen = self._seen.get(key)
        if seen is None:
            return None
        try:
            stored = await self._datasets.get(seen.name)
        except MaoError as error:
            if error.code != CONDITION:
                raise
            return seen  # any member can make it so
        return stored.record if stored is not None and key in stored.record.external else None

    async def _all(self) -> list[Dataset]:
        found: list[Dataset] = []
        cursor = None
        while True:
            page = await self._datasets.page(PAGE, cursor)
            found += [each.record for each in page.items]
            cursor = page.cursor
            if cursor is None:
                return found


def first_part(key: str) -> str:
    """What a dataset declares: all keys below it go to the same one."""
    return key.partition("/")[0]


def chosen(key: str, datasets: list[Dataset]) -> Dataset:
    """Pure: the one dataset that declares a key, by its first part."""
    whole, key = key, first_part(key)
    declaring = [each for each in datasets if key in each.external]
    if not declaring:
        below = f", below which {whole!r} is" if whole != key else ""
        raise NotFound(
            f"No dataset declares the key {key!r}{below}, so there is no place for its values.",
            code="external-key-unknown",
            next=f"Declare it on one: maoctl dataset external DATASET --key {key}",
        )
    if len(declaring) > 1:
        names = " and ".join(each.name for each in declaring)
        raise Conflict(
            f"The key {key!r} is declared by {names}; its values can go to one only.",
            code="external-key-ambiguous",
            next=f"Take it off the others: maoctl dataset external {declaring[-1].name} --remove-key {key}",
        )
    return declaring[0]
