"""Templates, security headers, errors as pages, and the frame around every page."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute
from markupsafe import Markup
from starlette.responses import Response

from mao_gateway.components import Gateway
from mao_gateway.events import revision_now
from mao_gateway.status import node_status
from mao_shared.conditions import conditions_of
from mao_shared.errors import InvalidInput, MaoError, NotFound, Unavailable
from mao_shared.models import Alarm
from mao_shared.models.node import NodeStatus
from mao_shared.settings import SERVICES
from mao_shared.text import harmless_line, one_line

from . import formats, marks
from .forms import KEY_FIELD, Message, Messages, new_key
from .node_api import AnswerCache, NodeApi, path_of

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would post forms with `Origin: null`
}
ZONE_COOKIE = "mao-zone"
_FOLDER = Path(__file__).parent
_STATIC = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_ALARMS = 100
messages = Messages()


@cache
def environment() -> Environment:
    """Return the templates, loaded with the first page: an idle gateway can do without their memory."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def harmless(value: Any) -> Any:
        return harmless_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    found = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters["shell"] = shlex.quote
    found.globals.update(
        icon=marks.icon,
        key_field=KEY_FIELD,
        new_key=new_key,
        state=marks.state,
        path_of=path_of,
        static=static_address,
        took=formats.took,
        span=formats.span,
        plural=formats.plural,
    )
    found.filters.update(size=formats.size, number=formats.number, id=formats.short_id, one_line=one_line)
    return found


@cache
def static_address(name: str) -> str:
    """Return the address of a static file; it changes with the file, so browsers may keep it for ever."""
    digest = hashlib.sha256((_FOLDER / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/ui/static/{digest}/{name}"


def static_text(name: str) -> str:
    """Return the content of a static file."""
    return (_FOLDER / "static" / name).read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame around every page shows."""

    status: NodeStatus
    alarms: list[Alarm]
    more_alarms: bool = False

    @property
    def federation(self) -> str | None:
        return self.status.federation.name if self.status.federation else None


class Page:
    """One page for one request; `clock` has the moment and zone of its times.

    `revision`: of the store before anything was read, so that the page knows which events came after; None if
    the store does not answer.
    """

    def __init__(
        self, request: Request, gateway: Gateway, zone: ZoneInfo, revision: int | None = None
    ) -> None:
        self.revision = revision
        self.request = request
        self.gateway = gateway
        self.api = NodeApi(gateway.proxy, request.scope, answers_of(request))
        self.clock = formats.Clock(datetime.now(UTC), zone)
        self.message: Message | None = messages.find(request.query_params.get("m"))
        self._frame: asyncio.Task[Frame] | None = None
        if request.method == "GET":
            self._begin_frame()  # while the handler reads its own parts; a form is answered by a redirect

    @property
    def node(self) -> str:
        return self.gateway.node

    @property
    def node_zone_is_utc(self) -> bool:
        return formats.Clock(self.clock.now, formats.node_zone()).is_utc

    def typed(self, form: str, field: str) -> str:
        """Return what was typed into a field of a form that failed, to show it again; otherwise empty."""
        message = self.message
        return message.fields.get(field, "") if message is not None and message.form == form else ""

    async def status(self) -> NodeStatus:
        """Return the node's status, which the frame shows."""
        return (await self._begin_frame()).status

    async def alarms(self) -> list[Alarm]:
        """Return the open alarms, newest first."""
        return (await self._begin_frame()).alarms

    async def render(
        self, template: str, *, section: str, title: str, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """Render a template. `section`: the page's name in the navigation."""
        frame = await self._begin_frame()
        found = environment().get_template(template)
        text = await asyncio.to_thread(
            found.render,
            page=self,
            frame=frame,
            section=section,
            title=title,
            clock=self.clock,
            here=str(self.request.url.path),
            **context,
        )
        answer = HTMLResponse(text, status, headers=HEADERS)
        if (zone := self.request.query_params.get("tz")) in ("utc", "node"):
            answer.set_cookie(ZONE_COOKIE, zone, httponly=True, samesite="strict", max_age=10**8)
        return answer

    def _begin_frame(self) -> asyncio.Task[Frame]:
        if self._frame is None:
            self._frame = asyncio.create_task(self._read_frame())
        return self._frame

    async def _read_frame(self) -> Frame:
        own = conditions_of(self.request.app)
        status, alarms = await asyncio.gather(
            node_status(self.gateway.node, self.gateway.store, self.gateway.proxy, SERVICES, own),
            self.api.optional(
                self.api.listing("/alarms", Alarm, state="open", newest="true", limit=MAX_ALARMS)
            ),
        )
        return Frame(status, alarms.items if alarms else [], alarms is not None and alarms.cursor is not None)

    async def close(self) -> None:
        """Wait for what a page that was not rendered has begun."""
        if self._frame is not None:
            self._frame.cancel()
            await asyncio.gather(self._frame, return_exceptions=True)


def answers_of(request: Request) -> AnswerCache:
    """Return the answers that the pages of this app share."""
    state = request.app.state
    if not hasattr(state, "page_answers"):
        state.page_answers = AnswerCache()
    answers: AnswerCache = state.page_answers
    return answers


def zone_of(request: Request) -> ZoneInfo:
    """Return the zone of a page: the node's, or UTC if the reader has asked for it."""
    wanted = request.query_params.get("tz") or request.cookies.get(ZONE_COOKIE)
    return ZoneInfo("UTC") if wanted == "utc" else formats.node_zone()


def make_page(request: Request, revision: int | None = None) -> Page:
    """Return the request's page (FastAPI dependency)."""
    page: Page | None = getattr(request.state, "page", None)
    if page is None:
        page = request.state.page = Page(request, request.app.state.gateway, zone_of(request), revision)
    return page


async def _page(request: Request) -> Page:
    gateway: Gateway = request.app.state.gateway
    revision = None
    if request.method == "GET":
        with suppress(Unavailable):
            revision = await revision_now(gateway.store, gateway.node)
    return make_page(request, revision)


PageDep = Annotated[Page, Depends(_page)]


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"][1:]))
                return await _error_page(request, InvalidInput(f"{where}: {first['msg']}."))
            except MaoError as error:
                return await _error_page(request, error)
            finally:
                if (page := getattr(request.state, "page", None)) is not None:
                    await page.close()

        return handle_page


async def _error_page(request: Request, error: MaoError) -> HTMLResponse:
    page = make_page(request)
    missing = isinstance(error, NotFound)
    title = "Not found" if missing else "This did not work"
    return await page.render("error.html", section="", title=title, status=error.status, error=error)


def page_router() -> APIRouter:
    """Return a router for pages; their paths are not in the API document."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


static_router = APIRouter(include_in_schema=False)


@static_router.get("/ui/static/{digest}/{name}")
async def static_file(digest: str, name: str) -> FileResponse:
    path = _FOLDER / "static" / name
    if "/" in name or path.suffix not in _STATIC or not path.is_file():
        raise NotFound(f"The dashboard has no file {name!r}.", next="Open / for the dashboard.")
    kept = (
        "public, max-age=31536000, immutable" if static_address(name).split("/")[3] == digest else "no-cache"
    )
    return FileResponse(path, media_type=_STATIC[path.suffix], headers={"Cache-Control": kept})


missing_router = page_router()


@missing_router.get("/ui/{rest:path}")
async def missing_page(rest: str) -> HTMLResponse:
    raise NotFound(f"There is no page {'/ui/' + rest!r}.", next="Open / for the dashboard.")
