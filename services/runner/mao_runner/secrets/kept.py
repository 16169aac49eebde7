"""Stores the node's secrets, encrypted together with their names.

Whoever can write to etcd can neither read a secret nor exchange two: the key is in the data directory, and a
value is used only under the name that it was encrypted with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import Conflict, InvalidInput, MaoError, NotFound, StillReferenced
from mao_shared.host.sealed import SealedSecrets
from mao_shared.logs import get_logger
from mao_shared.models import Enrolment, Listing
from mao_shared.models.common import unreadable_items
from mao_shared.models.secret import MAX_SECRET, MIN_SECRET, SealedSecret, SecretRef, SecretState
from mao_shared.store import Records, Store, Unreadable

log = get_logger(__name__)

MAX_KEPT = 1000


class Secrets:
    """Sets, lists, removes and opens the secrets of one node. Values are returned by `open` only."""

    def __init__(
        self,
        node: str,
        store: Store,
        sealed: SealedSecrets,
        clock: Clock,
        unreadable: Unreadable | None = None,
    ) -> None:
        self._sealed = sealed
        self._clock = clock
        self._rotating = asyncio.Lock()
        self._records = Records(store, keys.secrets_prefix(node), SealedSecret, unreadable)
        self._enrolments = Records(store, keys.enrolments_prefix(node), Enrolment, unreadable)

    async def put(self, name: str, value: str) -> tuple[SecretState, bool]:
        """Set a secret; return it, and whether it is new.

        Raises InvalidInput (`secret-size`), Conflict if there are MAX_KEPT or another call changed it, and
        MaoError (`secret-key-unusable`).
        """
        if not MIN_SECRET <= len(value.encode()) <= MAX_SECRET:
            raise InvalidInput(
                f"A secret has {MIN_SECRET} to {MAX_SECRET} bytes; this one has {len(value.encode())}.",
                code="secret-size",
                next="A shorter value could not be masked in logs: choose a longer one.",
            )
        now = self._clock.now()
        async with self._rotating:
            sealed = await asyncio.to_thread(self._seal, name, value)
            present = await self._records.find(name)
            if present is None:
                if len(await self._records.all()) >= MAX_KEPT:
                    raise Conflict(
                        f"There are {MAX_KEPT} secrets already.", next="Remove one: maoctl secret remove NAME"
                    )
                record = SealedSecret(name=name, sealed=sealed, created_at=now, changed_at=now)
                await self._records.put(name, record)  # replaces an unreadable one
            else:
                changes = {"sealed": sealed, "previous": present.record.sealed, "changed_at": now}
                record = present.record.model_copy(update=changes)
                if await self._records.replace(name, record, present.revision) is None:
                    raise Conflict(f"The secret {name!r} was changed meanwhile.", next="Set it again.")
        log.info("secret.set", subject=name)
        return _state(record, await self._users()), present is None

    async def list_(self) -> Listing[SecretState]:
        """Return all secrets without their values, and the unreadable records."""
        page, users = await self._records.page(), await self._users()
        return Listing(
            items=[_state(stored.record, users) for stored in page.items],
            unreadable=unreadable_items(page.unreadable),
        )

    async def state(self, name: str) -> SecretState:
        """Return one secret without its value. Raises NotFound."""
        stored = await self._records.get(name)
        if stored is None:
            raise _missing(name)
        return _state(stored.record, await self._users())

    async def remove(self, name: str) -> None:
        """Remove a secret, even an unreadable one. Raises NotFound, or StillReferenced by an enrolment."""
        if users := (await self._users()).get(name):
            raise StillReferenced(
                f"The secret {name!r} is given to {', '.join(users)}.",
                next="Remove it from the tool or step, then: maoctl pipeline approve "
                + users[0].partition("/")[0],
            )
        if not await self._records.delete(name):
            raise _missing(name)
        log.info("secret.removed", subject=name)

    async def rotate(self) -> int:
        """Encrypt all secrets with a new key, and remove the old one. Return how many there are.

        If it is interrupted, all secrets can still be opened, and it can be repeated. Raises RecordUnreadable
        and MaoError (`secret-unreadable`, `secret-key-unusable`), after which the old key is kept.
        """
        async with self._rotating:
            await asyncio.to_thread(self._sealed.add_key)
            stored = await self._records.all()
            for one in stored:
                changes = {
                    "sealed": await asyncio.to_thread(self._again, one.record.name, one.record.sealed),
                    "previous": None,
                }
                record = one.record.model_copy(update=changes)
                if await self._records.replace(record.name, record, one.revision) is None:
                    raise Conflict(f"The secret {record.name!r} was changed meanwhile.", next="Rotate again.")
            if (await self._records.page()).unreadable:
                raise Conflict(
                    "A secret's record cannot be read, so the old key is kept.",
                    next="Set or remove it ('maoctl secret get'), then rotate again.",
                )
            await asyncio.to_thread(self._sealed.drop_old_keys)
        log.info("secrets.rotated", count=len(stored))
        return len(stored)

    async def open(self, refs: Iterable[SecretRef]) -> dict[str, str]:
        """Return name → value of the secrets that a step names.

        Raises NotFound (`secret-missing`), RecordUnreadable, and MaoError (`secret-unreadable` …).
        """
        opened = {}
        for name in sorted({ref.secret for ref in refs}):
            stored = await self._records.get(name)
            if stored is None:
                raise _missing(name)
            opened[name] = await asyncio.to_thread(self._open, name, stored.record.sealed)
        return opened

    async def values_to_mask(self, refs: Iterable[SecretRef] | None) -> list[str]:
        """Return all known values of these secrets (None: of all), also those before the last change.

        Secrets that cannot be opened are left out: a tool cannot have got them. Raises Unavailable.
        """
        if refs is None:
            found = [stored.record for stored in await self._records.all()]
        else:
            names = sorted({ref.secret for ref in refs})
            found = [stored.record for name in names if (stored := await self._records.find(name))]
        values = []
        for record in found:
            for sealed in (record.sealed, record.previous):
                try:
                    values += [await asyncio.to_thread(self._open, record.name, sealed)] if sealed else []
                except MaoError as error:
                    log.warning("secret.unreadable", subject=record.name, error=error.detail)
        return values

    def _seal(self, name: str, value: str) -> str:
        return self._sealed.seal(json.dumps([name, value]))

    def _open(self, name: str, sealed: str) -> str:
        bound_to, value = json.loads(self._sealed.open(sealed))
        if bound_to != name:
            raise MaoError(
                f"The secret {name!r} was encrypted as {bound_to!r}: somebody has exchanged records in etcd.",
                code="secret-unreadable",
                next=f"Set it again: maoctl secret set {name}",
            )
        return str(value)

    def _again(self, name: str, sealed: str) -> str:
        return self._seal(name, self._open(name, sealed))

    async def _users(self) -> dict[str, list[str]]:
        """Return secret → `pipeline/step` of the enrolments that name it."""
        users: dict[str, list[str]] = {}
        for stored in await self._enrolments.all():
            for step in stored.record.steps:
                for name in {ref.secret for ref in step.secrets}:
                    users.setdefault(name, []).append(f"{stored.record.pipeline}/{step.name}")
        return users


def _state(record: SealedSecret, users: dict[str, list[str]]) -> SecretState:
    return SecretState(
        name=record.name,
        created_at=record.created_at,
        changed_at=record.changed_at,
        used_by=sorted(users.get(record.name, ())),
    )


def _missing(name: str) -> NotFound:
    return NotFound(
        f"This node has no secret {name!r}.",
        code="secret-missing",
        next=f"Set it: maoctl secret set {name}",
    )
