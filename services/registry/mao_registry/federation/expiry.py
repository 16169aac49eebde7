"""Reports certificates of this node that were not renewed and end soon (condition `certificate`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError
from mao_shared.models import format_time
from mao_shared.reconcile import every

from . import pki
from .context import FederationContext

CHECK_PERIOD = 3600.0  # seconds
NEAR = timedelta(days=21)  # before the end; certificates are renewed 60 days before it


def ending_certificates(ends: Mapping[str, datetime], now: datetime) -> dict[str, datetime]:
    """Return the certificates that end soon or have ended, by name of their file. Pure."""
    return {name: end for name, end in sorted(ends.items()) if end - now <= NEAR}


async def watch_certificates(context: FederationContext, conditions: Conditions) -> None:
    """Update the condition until cancelled."""

    async def step() -> None:
        await check_certificates(context, conditions)

    await every(CHECK_PERIOD, step, name="certificates", conditions=conditions)


async def check_certificates(context: FederationContext, conditions: Conditions) -> None:
    """Report or clear the condition for each certificate of this node."""
    linked = await context.find_link() is not None
    ends = await asyncio.to_thread(_ends, context) if linked else {}
    ending = ending_certificates(ends, context.now)
    for name, end in ending.items():
        ended = end <= context.now
        when = format_time(end.replace(microsecond=0))
        conditions.report(
            "certificate",
            name,
            detail=f"The certificate {name} {'ended' if ended else 'ends'} at {when} and was not renewed.",
            next_step="It is renewed once a core node answers, see maoctl federation list. If it has ended, "
            "join again with a new token.",
        )
    conditions.clear_all_but("certificate", ending)


def _ends(context: FederationContext) -> dict[str, datetime]:
    """Return when each certificate ends; an unreadable one is reported where it is used."""
    files = context.files
    ends: dict[str, datetime] = {}
    for path in (files.identity, files.server_identity, files.peer_identity):
        certificate = files.read(path)
        try:
            if certificate:
                ends[path.name] = pki.facts(certificate).not_after
        except MaoError:
            continue
    return ends
