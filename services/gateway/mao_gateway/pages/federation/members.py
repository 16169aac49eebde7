"""*Federation*: members and core, who is trusted, and this node's conditions, services and storage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse

from mao_gateway.pages.forms import carry_out, read_form
from mao_gateway.pages.node_api import path_of
from mao_gateway.pages.site import Page, PageDep, messages, page_router
from mao_shared.errors import NotFound
from mao_shared.models.enrolment import Trust
from mao_shared.models.evidence import RoundPage, RoundSummary
from mao_shared.models.federation import FederationState, NodePart, NodeState, TickStrip
from mao_shared.models.node import EngineInfo, NodeStatus, Storage

from .views import core_health, count_disagreement, late_ticks, member_rows, service_rows

router = page_router()

HERE = "/ui/federation"
MAX_DATASETS = 5  # of which the last rounds are read
ROUNDS_READ = 10
MAX_CONDITIONS = 200
MAX_MEMBERS = 200


@dataclass(frozen=True, slots=True)
class Others:
    """What is known of the other nodes. `state` None: in no federation, or it does not answer."""

    state: FederationState | None = None
    members: Sequence[NodeState] = field(default_factory=tuple)


@router.get(HERE)
async def show_federation(page: PageDep) -> HTMLResponse:
    api = page.api
    status, nodes, strips, trusted = await asyncio.gather(
        page.status(),
        api.optional(api.listing("/federation/nodes", NodePart)),
        api.optional(api.tagged_listing("/federation/ticks", TickStrip)),
        api.optional(api.listing("/trusted", Trust)),
    )
    parts = nodes.items if nodes else []
    own = next((part for part in parts if part.name == page.node), None)
    others, rounds, engine, storage = await asyncio.gather(
        _others(page, status),
        _rounds(page, own.datasets if own else []),
        api.optional(api.get("/engine", EngineInfo)),
        api.optional(api.get("/storage", Storage)),
    )
    late = late_ticks(strips.items if strips else [], page.clock)
    rows = member_rows(parts, others.members, late, count_disagreement(rounds), page.node)
    known = {row.name for row in rows}
    return await page.render(
        "federation.html",
        section="Federation",
        title="Federation",
        state=others.state,
        warnings=[
            warning
            for warning in (others.state.warnings if others.state else ())
            if not any(condition.detail in warning for condition in status.conditions)  # shown already
        ],
        link=status.federation,
        rows=rows[:MAX_MEMBERS],
        more_rows=len(rows) - MAX_MEMBERS,
        counted=len(rounds),
        core=core_health(others.members),
        trusted_elsewhere=[
            each.node for each in (trusted.items if trusted else []) if each.node not in known
        ],
        services=service_rows(status.services),
        conditions=status.conditions[:MAX_CONDITIONS],
        more_conditions=len(status.conditions) - MAX_CONDITIONS,
        store=status.store,
        engine=engine,
        storage=storage,
    )


async def _others(page: Page, status: NodeStatus) -> Others:
    """Read the federation's own records, unless it is known not to answer."""
    if status.federation is None or status.federation.reachable is False:
        return Others()
    state, members = await asyncio.gather(
        page.api.optional(page.api.get("/federation", FederationState)),
        page.api.optional(page.api.listing("/federation/members", NodeState)),
    )
    return Others(state, members.items if members else ())


async def _rounds(page: Page, datasets: Sequence[str]) -> list[RoundSummary]:
    """Return the last rounds of the first datasets that this node votes on."""
    pages = await asyncio.gather(
        *(
            page.api.optional(page.api.get(path_of("datasets", name, "rounds"), RoundPage, limit=ROUNDS_READ))
            for name in sorted(datasets)[:MAX_DATASETS]
        )
    )
    return [round_ for found in pages if found is not None for round_ in found.items]


@router.post(HERE + "/nodes/{node}/{action}")
async def change_trust(page: PageDep, request: Request, node: str, action: str) -> RedirectResponse:
    await read_form(request)
    if action == "trust":
        call = page.api.send("PUT", path_of("trusted", node))
        done = f"Changes that {node} endorses are approved on this node from now on."
    elif action == "untrust":
        call = page.api.send("DELETE", path_of("trusted", node))
        done = f"Changes of {node} wait for your approval from now on."
    else:
        raise NotFound(f"There is no action {action!r} on a node.", next=f"Open {HERE}.")
    return await carry_out(messages, call, done=done, then=HERE, otherwise=HERE)
