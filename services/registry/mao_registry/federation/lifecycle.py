"""The commands of a federation, as the routes call them; one at a time on a node."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from fastapi import Request

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.federation import FederationStore
from mao_shared.logs import get_logger
from mao_shared.models import CoreMember, Demotion, Departure, FederationState, Invitation, Joined, NodeState
from mao_shared.models.common import stored_fields

from . import access, cores, status
from .access import encode_token
from .context import FederationContext
from .controller import FederationController
from .create import CreateCommand
from .etcd_versions import EtcdVersions
from .join import JoinCommand
from .leave import LeaveCommand
from .status import outage_explained

log = get_logger(__name__)
RETRY = 10.0  # seconds before an invitation from a file is tried again


class Lifecycle:
    """Errors are those of the modules named after the commands."""

    def __init__(
        self, site: FederationContext, federation: FederationStore, conditions: Conditions | None = None
    ) -> None:
        self.site = site
        self.federation = federation
        self.versions = EtcdVersions(site, conditions or Conditions(site.clock))
        self.upkeep = FederationController(site, federation, self.versions, conditions)
        self._turn = asyncio.Lock()

    async def create(self, name: str, *, allow_unsafe: bool = False) -> FederationState:
        async with self._turn:
            await CreateCommand(self.site, self.versions).create(name, allow_unsafe=allow_unsafe)
            return await self._own_view()

    async def invite(self, node: str, valid: float) -> Invitation:
        async with self._turn, self._explained():
            token = await access.invite(self.site, node, timedelta(seconds=valid))
        return Invitation(
            federation=token.federation,
            node=node,
            token=encode_token(token),
            fingerprint=token.fingerprint,
            expires_at=token.expires_at,
        )

    async def join(self, token: str, *, allow_unsafe: bool = False) -> Joined:
        async with self._turn, self._explained():
            joining = JoinCommand(self.site, self.versions)
            await joining.join(token, allow_unsafe=allow_unsafe)
            seen = await self._own_view()
        return Joined(**stored_fields(seen), published=joining.published)

    async def leave(self, *, force: bool) -> Departure:
        async with self._turn:
            left = await LeaveCommand(self.site, self.federation.replica).leave(force=force)
            self.versions.look_alone()
            return left

    async def promote(self, node: str, *, allow_unsafe: bool = False) -> CoreMember:
        async with self._explained():
            return await cores.promote(self.site, self.versions, node, allow_unsafe=allow_unsafe)

    async def demote(self, node: str) -> Demotion:
        async with self._explained():
            return await cores.demote(self.site, node)

    async def remove(self, node: str) -> None:
        async with self._explained():
            await cores.remove(self.site, node)

    def _explained(self) -> AbstractAsyncContextManager[None]:
        return outage_explained(self.site, self.federation)

    async def state(self) -> FederationState:
        """From copies while the federation does not answer."""
        await self.site.linked()
        seen = await status.federation_state(self.site, self.federation)
        if self.federation.removed:
            return status.after_removal(seen)
        return self._warned(seen.model_copy(update={"reachable": self.federation.reachable}))

    async def nodes(self) -> list[NodeState]:
        """From copies while the federation does not answer."""
        seen = await status.node_states(self.site, self.federation)
        return status.nodes_after_removal(seen, self.site.node) if self.federation.removed else seen

    async def _own_view(self) -> FederationState:
        """Right after a change, when this process may not have gone over to the new store yet."""
        link = await self.site.linked()
        async with self.site.joined(",".join(link.endpoints)) as store:
            return self._warned(await status.federation_state(self.site, store))

    def _warned(self, seen: FederationState) -> FederationState:
        return seen.model_copy(update={"warnings": self.versions.warnings()})

    async def join_by_file(self, path: Path) -> None:
        """Joins with the token in a file, again and again until it worked or there is a link already."""
        while True:
            try:
                if await self.site.link() is not None:
                    return
                await self.join(await asyncio.to_thread(path.read_text))
            except OSError as error:
                log.warning(
                    "federation.no_token", path=str(path), error=error.strerror, next=self._no_token()
                )
            except MaoError as error:
                log.warning("federation.not_joined", code=error.code, error=error.detail, next=error.next)
            except Exception:  # what the file or the federation says must not end the service
                log.exception("federation.not_joined")
            else:
                return
            await asyncio.sleep(RETRY)

    def _no_token(self) -> str:
        return (
            f"Write what 'maoctl federation invite {self.site.node}' prints on a core node to the file of "
            f"MAO_JOIN_TOKEN_FILE, readable by this process; it is looked for every {RETRY:.0f} s."
        )


def lifecycle_of(request: Request) -> Lifecycle:
    """Dependency: what the lifespan built."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle
