"""Who signs commits in this federation: every node's public keys, as git's list of allowed signers.

A key that was replaced stays listed, since what it signed stays signed.
"""

from __future__ import annotations

import asyncio
import re

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.logs import Outage, get_logger
from mao_shared.models import Signer
from mao_shared.reconcile import every
from mao_shared.store import Records

log = get_logger(__name__)

TRY_AGAIN = 10.0  # seconds
_PRINCIPAL = re.compile(r"[^\s,!*?\"#]+")


def allowed_line(email: str, node: str, public_key: str) -> str:
    """A line of an allowed-signers file. An e-mail that is no plain word would be a pattern there."""
    principal = email if _PRINCIPAL.fullmatch(email) else f"mao@{node}"
    return f'{principal} namespaces="git" {public_key}'


def with_line(signer: Signer | None, node: str, line: str) -> Signer | None:
    """Pure: the node's record with one more line; None when it has it."""
    lines = [] if signer is None else signer.lines
    if line in lines:
        return None
    known = signer or Signer(node=node, lines=[])
    return known.model_copy(update={"lines": [*lines, line]})


class Signers:
    """`own`: this node's line, None when it does not sign."""

    def __init__(
        self, node: str, records: Records[Signer], own: str | None, conditions: Conditions | None = None
    ) -> None:
        self._conditions = conditions
        self._node = node
        self._records = records
        self._own = own
        self._again = asyncio.Event()
        if isinstance(records.store, FederationStore):
            records.store.on_switch(self._again.set)

    async def keep_announced(self) -> None:
        """Writes the node's line down, and again in each federation that the node goes over to, for ever."""
        await every(0.0, self._announce_again, name="signers", conditions=self._conditions)

    async def _announce_again(self) -> None:
        self._again.clear()
        await self.announce()
        await self._again.wait()

    async def announce(self) -> None:
        """Writes the node's line down, however long that takes."""
        outage = Outage()
        while self._own is not None:
            try:
                if await self._announce_once(self._own):
                    return
            except MaoError as error:
                if outage.is_news():
                    log.warning("signer.not_announced", error=error.detail)
                await asyncio.sleep(TRY_AGAIN)

    async def _announce_once(self, line: str) -> bool:
        stored = await self._records.get(self._node)
        signer = with_line(None if stored is None else stored.record, self._node, line)
        if signer is None:
            return True
        if stored is None:
            return await self._records.create(self._node, signer) is not None
        return await self._records.replace(self._node, signer, stored.revision) is not None

    async def allowed(self) -> str:
        """The file that `git -c gpg.ssh.allowedSignersFile=… verify-commit` takes."""
        signers = sorted((each.record for each in await self._records.all()), key=lambda each: each.node)
        return "".join(f"{line}\n" for signer in signers for line in signer.lines)
