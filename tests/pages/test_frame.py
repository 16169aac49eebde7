"""What all pages have in common."""

from __future__ import annotations

from tests.support.node import NativeNode
from tests.support.reader import look_at, reading


async def test_frame_error_page(node: NativeNode) -> None:
    async with reading(node.url) as reader:
        page = await reader.context.new_page()
        answer = await page.goto("/ui/no-such-page")
        assert answer is not None
        assert answer.status == 404


async def test_frame_today_is_accessible(node: NativeNode) -> None:
    async with reading(node.url) as reader:
        await look_at(reader, "/", "today-empty")
