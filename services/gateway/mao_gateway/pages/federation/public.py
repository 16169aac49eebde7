"""Public status of datasets: does data come in, and do the nodes agree. Read-only, off unless set.

`MAO_PUBLIC_STATUS` names the datasets; for others, these paths are as unknown as any. What is named may be
read by anybody who reaches the gateway, without a token, so only times, counts and names of nodes and
pipelines are shown: no logs, contents, reasons, addresses or ids of runs. Answers are made at most every
`CACHE_SECONDS`, however many ask, and carry an ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mao_gateway.components import Gateway, GatewayDep
from mao_gateway.pages import marks
from mao_gateway.pages.formats import Clock, node_zone, plural
from mao_gateway.pages.node_api import NodeApi, path_of
from mao_gateway.pages.site import POLICY, answers_of, environment, static_text
from mao_shared.errors import MaoError
from mao_shared.models import Enrolment
from mao_shared.models.dataset import CommitInfo
from mao_shared.models.evidence import RoundPage, RoundSummary
from mao_shared.models.federation import TickStrip

router = APIRouter(include_in_schema=False)

CACHE_SECONDS = 60
SHOWN_TICKS = 60
MAX_PIPELINES = 10
_BAD, _HELD, _RUNNING = "fml", "q", "rwk"
_BADGE_COLOURS = {"ok": "#13736a", "bad": "#9c1030", "off": "#535d6b"}
_LETTER = 6.6  # width of a letter of the badge, in pixels


@dataclass(frozen=True, slots=True)
class Collection:
    """The last ticks of a pipeline on this node. Empty `marks`: none yet."""

    pipeline: str
    marks: str


@dataclass(frozen=True, slots=True)
class PublicStatus:
    """What is known of a dataset. `last`: time of this node's newest commit; `round`: the last decided."""

    dataset: str
    last: datetime | None
    collections: Sequence[Collection] = ()
    round: RoundSummary | None = None

    @property
    def verdict(self) -> tuple[str, str]:
        """Whether data comes in: colour token and words. The newest tick that has ended counts."""
        ended = [_last_ended(each.marks) for each in self.collections]
        known = [letter for letter in ended if letter]
        if any(letter in _BAD for letter in known):
            return "bad", "the last collection did not succeed"
        if _HELD in known:
            return "bad", "the last data are held back by a check"
        if known:
            return "ok", "data comes in"
        if self.last is None:
            return "off", "no data yet"
        return "off", "not scheduled here"

    @property
    def agreement(self) -> tuple[str, str]:
        """Whether the nodes agreed in the last round: colour token and words."""
        found = self.round
        if found is None:
            return "off", "no round of several nodes yet"
        voters = f"{found.voters} of {plural(found.nodes, 'node')}"
        if not found.cells:
            return "ok", f"{voters} agree on everything"
        return "warn", f"{voters} voted; they differ in {plural(found.cells, 'cell')}"


def _last_ended(letters: str) -> str:
    return next((letter for letter in reversed(letters) if letter not in _RUNNING), "")


def status_strip(collection: Collection) -> Markup:
    """Return the strip of a pipeline's last ticks, without links. Pure."""
    shown = collection.marks[-SHOWN_TICKS:]
    words = {**marks.MARKS, "s": "succeeded"}

    def describe(index: int) -> tuple[str, None]:
        return words.get(shown[index], "unknown"), None

    def describe_good(first: int, last: int) -> str:
        return f"{plural(last - first + 1, 'tick')} succeeded"

    label = f"last {plural(len(shown), 'tick')} of {collection.pipeline}: {marks.counted(shown)}"
    return marks.strip(shown, label, describe, describe_good, places=SHOWN_TICKS)


def badge(dataset: str, status: PublicStatus | None) -> str:
    """Return the badge as an SVG document; `status` None: not known. Pure."""
    colour, words = status.verdict if status is not None else ("off", "not known")
    name = dataset if len(dataset) <= 40 else dataset[:39] + "…"
    left, right = round(len(name) * _LETTER + 12), round(len(words) * _LETTER + 12)
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
            'aria-label="{name}: {words}"><title>{name}: {words}</title>'
            '<rect width="{width}" height="20" rx="3" fill="#3b4350"/>'
            '<path d="M{left} 0h{inner}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{left}z" fill="{fill}"/>'
            '<g fill="#ffffff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
            '<text x="6" y="14" textLength="{name_width}">{name}</text>'
            '<text x="{text}" y="14" textLength="{words_width}">{words}</text>'
            "</g></svg>\n"
        ).format(
            width=left + right,
            left=left,
            inner=right - 3,
            fill=_BADGE_COLOURS[colour],
            name=name,
            words=words,
            name_width=left - 12,
            words_width=right - 12,
            text=left + 6,
        )
    )


def _check(gateway: Gateway, dataset: str) -> None:
    if dataset not in gateway.public:
        raise HTTPException(404)


class Statuses:
    """The statuses that all callers of an app share, each at most CACHE_SECONDS old."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, asyncio.Task[PublicStatus | None]]] = {}

    async def get(
        self, dataset: str, ask: Callable[[], Awaitable[PublicStatus | None]]
    ) -> PublicStatus | None:
        """Return what the last call of `ask` returned, or is about to return, if it is recent."""
        at, task = self._asked.get(dataset, (0.0, None))
        if task is None or monotonic() - at > CACHE_SECONDS:
            task = asyncio.ensure_future(ask())
            self._asked[dataset] = monotonic(), task
        return await asyncio.shield(task)


async def _read(request: Request, gateway: Gateway, dataset: str) -> PublicStatus | None:
    state = request.app.state
    if not hasattr(state, "public_statuses"):
        state.public_statuses = Statuses()
    statuses: Statuses = state.public_statuses
    api = NodeApi(gateway.proxy, request.scope, answers_of(request))
    return await statuses.get(dataset, lambda: _ask(api, dataset))


async def _ask(api: NodeApi, dataset: str) -> PublicStatus | None:
    path = path_of("datasets", dataset)
    try:
        commits, rounds, enrolments, strips = await asyncio.gather(
            api.optional(api.listing(f"{path}/log", CommitInfo, limit=1)),
            api.optional(api.get(f"{path}/rounds", RoundPage, limit=1)),
            api.listing("/enrolments", Enrolment, limit=1000),
            api.listing("/ticks", TickStrip),
        )
    except MaoError:
        return None
    if api.problems:
        return None
    writing = {each.pipeline for each in enrolments.items if dataset in each.outputs}
    found = [Collection(strip.pipeline, strip.marks) for strip in strips.items if strip.pipeline in writing]
    return PublicStatus(
        dataset,
        commits.items[0].time if commits and commits.items else None,
        sorted(found, key=lambda each: each.pipeline)[:MAX_PIPELINES],
        rounds.items[0] if rounds and rounds.items else None,
    )


@router.get("/public/{dataset}")
async def show_status(request: Request, gateway: GatewayDep, dataset: str) -> Response:
    _check(gateway, dataset)
    status = await _read(request, gateway, dataset)
    template = environment().get_template("public.html")
    address = path_of("public", dataset)
    clock = Clock(datetime.min.replace(tzinfo=UTC), node_zone())  # no relative times

    def render() -> str:
        return template.render(
            dataset=dataset, status=status, address=address, clock=clock, strip=status_strip
        )

    return await _answer(request, render, "text/html; charset=utf-8", known=status is not None)


@router.get("/public/{dataset}/badge.svg")
async def show_badge(request: Request, gateway: GatewayDep, dataset: str) -> Response:
    _check(gateway, dataset)
    status = await _read(request, gateway, dataset)
    answer = await _answer(request, lambda: badge(dataset, status), "image/svg+xml", known=status is not None)
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # it is made to be shown elsewhere
    return answer


@router.get("/public/{dataset}/style.css")
async def show_style(request: Request, gateway: GatewayDep, dataset: str) -> Response:
    _check(gateway, dataset)
    return await _answer(request, lambda: static_text("style.css"), "text/css; charset=utf-8")


async def _answer(
    request: Request, render: Callable[[], str], media_type: str, known: bool = True
) -> Response:
    """Return a text with an ETag, or 304 for a caller who has it. Nobody keeps what is not known."""
    body = (await asyncio.to_thread(render)).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": f"public, max-age={CACHE_SECONDS}" if known else "no-store",
        "ETag": tag,
    }
    sent = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if known and (tag in sent or "*" in sent):
        return Response(status_code=304, headers=headers)
    return Response(body, 200 if known else 503, headers, media_type)
