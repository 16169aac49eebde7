"""What *Federation* shows of its members and of this node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mao_gateway.pages.formats import Clock, plural
from mao_gateway.pages.today import NOT_HEARD_AFTER
from mao_shared.models.evidence import RoundSummary
from mao_shared.models.federation import NodePart, NodeState, TickStrip
from mao_shared.models.node import ServiceStatus


@dataclass(frozen=True, slots=True)
class Disagreement:
    """In how many of the last rounds a node differed from the ground truth, or was not there."""

    voted: int = 0
    differed: int = 0
    absent: int = 0


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A node of the federation as this node sees it.

    `seat`: its part in the core in words, with icon and colour; empty if it has none. `late`: why it lags.
    `other_version`: it runs another version than this node.
    """

    name: str
    own: bool
    present: bool
    state: str
    icon: str
    colour: str
    last_seen: datetime | None
    version: str
    other_version: bool
    seat: str
    seat_icon: str
    seat_colour: str
    late: Sequence[str]
    disagreement: Disagreement
    trusted: bool
    datasets: Sequence[str]
    expires: datetime | None


def count_disagreement(rounds: Iterable[RoundSummary]) -> dict[str, Disagreement]:
    """Return by node how often it differed or was absent in these rounds."""
    found: dict[str, Disagreement] = {}
    for round_ in rounds:
        for node, cells in round_.differing.items():
            before = found.get(node, Disagreement())
            found[node] = Disagreement(before.voted + 1, before.differed + bool(cells), before.absent)
        for node in round_.abstained:
            before = found.get(node, Disagreement())
            found[node] = Disagreement(before.voted, before.differed, before.absent + 1)
    return found


def late_ticks(strips: Iterable[TickStrip], clock: Clock) -> dict[str, list[str]]:
    """Return by node which pipelines have had no news of a tick that is over, in words."""
    found: dict[str, list[str]] = {}
    for strip in sorted(strips, key=lambda strip: (strip.node, strip.pipeline)):
        if strip.paused or strip.next_tick is None or clock.now - strip.next_tick <= NOT_HEARD_AFTER:
            continue
        words = f"{strip.pipeline}: no news of the tick of {clock.full(strip.next_tick)}"
        found.setdefault(strip.node, []).append(words)
    return found


def member_rows(
    parts: Sequence[NodePart],
    members: Sequence[NodeState],
    late: Mapping[str, Sequence[str]],
    disagreement: Mapping[str, Disagreement],
    node: str,
) -> list[MemberRow]:
    """Return a row for each node, this one first, then by name. `late`: as `late_ticks` returns."""
    states = {member.node: member for member in members}
    known = {part.name: part for part in parts}
    own = known.get(node)
    version = own.version if own is not None else None
    names = sorted({*known, *states}, key=lambda name: (name != node, name))
    return [
        _row(name, known.get(name), states.get(name), version, late, disagreement, node) for name in names
    ]


def _row(
    name: str,
    part: NodePart | None,
    member: NodeState | None,
    version: str | None,
    late: Mapping[str, Sequence[str]],
    disagreement: Mapping[str, Disagreement],
    node: str,
) -> MemberRow:
    present = part.present if part is not None else member is not None and member.present
    state, icon, colour = _state(present, member)
    seat, seat_icon, seat_colour = _seat(member)
    its_version = (part.version if part else None) or (member.version if member else None) or ""
    return MemberRow(
        name=name,
        own=name == node,
        present=present,
        state=state,
        icon=icon,
        colour=colour,
        last_seen=part.last_seen if part is not None else None,
        version=its_version,
        other_version=bool(its_version and version and its_version != version),
        seat=seat,
        seat_icon=seat_icon,
        seat_colour=seat_colour,
        late=late.get(name, ()),
        disagreement=disagreement.get(name, Disagreement()),
        trusted=part is not None and part.trusted,
        datasets=part.datasets if part is not None else (),
        expires=member.expires_at if member is not None else None,
    )


def _state(present: bool, member: NodeState | None) -> tuple[str, str, str]:
    if member is not None and member.state != "joined":
        return (member.state, "waiting", "off") if member.state == "invited" else ("removed", "failed", "bad")
    return ("present", "ok", "ok") if present else ("absent", "stale", "off")


def _seat(member: NodeState | None) -> tuple[str, str, str]:
    """Return the state of a node's member of etcd in words, icon and colour."""
    if member is None or member.seat is None:
        return "", "ok", "off"
    if member.healthy:
        return member.seat, "ok", "ok"
    if member.answers:
        return f"{member.seat}, no majority", "attention", "bad"
    return f"{member.seat}, does not answer", "failed", "bad"


@dataclass(frozen=True, slots=True)
class CoreHealth:
    """How many of the core's members answer, and how many may fail."""

    voters: int
    healthy: int

    @property
    def needed(self) -> int:
        return self.voters // 2 + 1

    @property
    def spare(self) -> int:
        return max(0, self.healthy - self.needed)

    @property
    def words(self) -> str:
        if self.healthy < self.needed:
            return f"no majority: {self.healthy} of {self.voters} answer, {self.needed} are needed"
        spare = f"{self.spare} more may fail" if self.spare else "none may fail"
        return f"{self.healthy} of {plural(self.voters, 'voter')} answer, {spare}"


def core_health(members: Sequence[NodeState]) -> CoreHealth | None:
    """Return the health of the core; None if its members are not known."""
    voters = [member for member in members if member.seat == "voter"]
    return CoreHealth(len(voters), sum(bool(member.healthy) for member in voters)) if voters else None


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service: `faults` are its failed checks, or why it is not ready."""

    name: str
    ready: bool
    version: str
    faults: Sequence[str]


def service_rows(services: Mapping[str, ServiceStatus]) -> list[ServiceRow]:
    rows = []
    for name, service in services.items():
        faults = [f"{check}: {said}" for check, said in sorted(service.checks.items()) if said != "ok"]
        if not service.ready and not faults:
            faults = [service.reason or "not ready"]
        rows.append(ServiceRow(name, service.ready, service.version or "", faults))
    return rows
