"""The federation commands that the routes call."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from fastapi import Request

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, Unavailable
from mao_shared.federation import FederationStore
from mao_shared.models import CoreMember, Demotion, Departure, FederationState, Invitation, Joined, NodeState
from mao_shared.models.common import stored_fields
from mao_shared.reconcile import Backoff, until_done

from . import access, cores, departure, status
from .access import encode_token
from .context import FederationContext
from .controller import FederationController
from .create import CreateCommand
from .departure import LeaveCommand
from .etcd_versions import EtcdVersions
from .join import JoinCommand
from .status import outage_explained

JOIN_BACKOFF = Backoff(10.0, 10.0)  # seconds before an invitation from a file is tried again


class Lifecycle:
    """The federation commands. Only one of create, invite, join and leave runs at a time."""

    def __init__(
        self, context: FederationContext, federation: FederationStore, conditions: Conditions | None = None
    ) -> None:
        self.context = context
        self.federation = federation
        self.versions = EtcdVersions(context, conditions or Conditions(context.clock))
        self.controller = FederationController(context, federation, self.versions, conditions)
        self._lock = asyncio.Lock()

    async def create(self, name: str, *, allow_unsafe: bool = False) -> FederationState:
        async with self._lock:
            await CreateCommand(self.context, self.versions).create(name, allow_unsafe=allow_unsafe)
            return await self._fresh_state()

    async def invite(self, node: str, valid: float) -> Invitation:
        """Invite a node; `valid` in seconds."""
        async with self._lock, self._explained():
            token = await access.invite(self.context, node, timedelta(seconds=valid))
        return Invitation(
            federation=token.federation,
            node=node,
            token=encode_token(token),
            fingerprint=token.fingerprint,
            expires_at=token.expires_at,
        )

    async def join(self, token: str, *, allow_unsafe: bool = False) -> Joined:
        async with self._lock, self._explained():
            command = JoinCommand(self.context, self.versions)
            await command.join(token, allow_unsafe=allow_unsafe)
            state = await self._fresh_state()
        return Joined(**stored_fields(state), published=command.published)

    async def leave(self, *, force: bool) -> Departure:
        async with self._lock:
            departure = await LeaveCommand(self.context, self.federation.replica).leave(force=force)
            self.versions.update_condition_alone()
            return departure

    async def promote(self, node: str, *, allow_unsafe: bool = False) -> CoreMember:
        async with self._explained():
            return await cores.promote(self.context, self.versions, node, allow_unsafe=allow_unsafe)

    async def demote(self, node: str) -> Demotion:
        async with self._explained():
            return await cores.demote(self.context, node)

    async def remove(self, node: str) -> None:
        async with self._explained():
            await departure.remove(self.context, node)

    def _explained(self) -> AbstractAsyncContextManager[None]:
        return outage_explained(self.context, self.federation)

    async def state(self) -> FederationState:
        """Return the federation's state, from the replica while it does not answer."""
        await self.context.link()
        state = await status.federation_state(self.context, self.federation)
        if self.federation.removed:
            return status.after_removal(state)
        return self._with_warnings(state.model_copy(update={"reachable": self.federation.reachable}))

    async def nodes(self) -> list[NodeState]:
        """Return the state of all nodes, from the replica while the federation does not answer."""
        states = await status.node_states(self.context, self.federation)
        return status.nodes_after_removal(states, self.context.node) if self.federation.removed else states

    async def _fresh_state(self) -> FederationState:
        """Read the state over a new connection, since `federation` may not have switched yet."""
        link = await self.context.link()
        async with self.context.connect(link.endpoints) as store:
            return self._with_warnings(await status.federation_state(self.context, store))

    def _with_warnings(self, state: FederationState) -> FederationState:
        return state.model_copy(update={"warnings": self.versions.warnings()})

    async def join_by_file(self, path: Path) -> None:
        """Join with the token in a file; retry until the node is in a federation."""

        async def join() -> None:
            if await self.context.find_link() is not None:
                return
            try:
                token = await asyncio.to_thread(path.read_text)
            except OSError as error:
                raise Unavailable(
                    f"The invitation in {path} (MAO_JOIN_TOKEN_FILE) cannot be read: {error.strerror}. Write"
                    f" the output of 'maoctl federation invite {self.context.node}' on a core node to it."
                ) from error
            await self.join(token)

        await until_done(join, name="join-by-file", away=JOIN_BACKOFF, failing=JOIN_BACKOFF, outages=MaoError)


async def get_lifecycle(request: Request) -> Lifecycle:
    """Return the lifecycle built at startup; a FastAPI dependency."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle
