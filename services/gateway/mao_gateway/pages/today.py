"""*Today*: did the data come in, do the nodes agree, is it safe at the remote; then what needs a person."""

from __future__ import annotations

from fastapi.responses import HTMLResponse

from .site import PageDep, page_router

router = page_router()


@router.get("/")
async def today(page: PageDep) -> HTMLResponse:
    return await page.render("today.html", section="Today", title="Today", alarms=await page.alarms())
