"""Numbered lines of logs of all kinds: hostile ones, long ones, unfinished ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_runner.logs.lines import BLOCK, MAX_LINE_BYTES, LinesFound, read_lines, search_lines


def _log(root: Path, content: bytes) -> Path:
    path = root / "log"
    path.write_bytes(content)
    return path


def _shown(found: LinesFound) -> list[tuple[int, str]]:
    return [(line.number, line.text) for line in found.lines]


@pytest.mark.parametrize(
    ("content", "first", "expected", "open_line"),
    [
        (b"", None, [], 0),
        (b"a\nb\nc\n", None, [(2, "b"), (3, "c")], 6),
        (b"a\nb\nc", None, [(2, "b"), (3, "c")], 4),
        (b"a\nb\nc\n", 1, [(1, "a"), (2, "b")], 6),
        (b"a\nb\nc\n", 3, [(3, "c")], 6),
        (b"a\nb\nc\n", 9, [], 6),
        (b"\n\n\n", None, [(2, ""), (3, "")], 3),
        (b"no newline", None, [(1, "no newline")], 0),
        (b"\xff\xfe\x00\x1b[2J<b>\n", None, [(1, "\ufffd\ufffd\x00\x1b[2J<b>")], 11),
    ],
)
def test_read_lines_pages(
    tmp_path: Path, content: bytes, first: int | None, expected: list[tuple[int, str]], open_line: int
) -> None:
    found = read_lines(_log(tmp_path, content), first, 2)
    assert _shown(found) == expected
    assert (found.open_line, found.size) == (open_line, len(content))


@pytest.mark.parametrize("first", [None, 1, 77_777])
def test_read_lines_over_blocks(tmp_path: Path, first: int | None) -> None:
    lines = [f"line {number} {'x' * (number % 90)}" for number in range(1, 100_001)]
    content = "\n".join(lines).encode() + b"\n"
    assert len(content) > 3 * BLOCK
    found = read_lines(_log(tmp_path, content), first, 5)
    begin = first or 99_996
    assert _shown(found) == [(number, lines[number - 1]) for number in range(begin, begin + 5)]
    assert found.total == 100_000


@pytest.mark.parametrize(
    ("line", "text", "before"),
    [
        (b"10%\r20%\r30%", "30%", 8),
        (b"10%\r20%\r", "20%", 4),
        (b"windows\r", "windows", 0),
        (b"\r\r", "", 0),
        (b"\r".join(b"%d%%" % number for number in range(5000)), "4999%", 0),
    ],
)
def test_read_lines_carriage_returns(tmp_path: Path, line: bytes, text: str, before: int) -> None:
    [found] = read_lines(_log(tmp_path, line + b"\nnext\n"), 1, 1).lines
    assert found.text == text
    assert found.before == (before or line.rstrip(b"\r").rfind(b"\r") + 1)


@pytest.mark.parametrize("size", [MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * BLOCK + 17])
def test_read_lines_long_line(tmp_path: Path, size: int) -> None:
    found = read_lines(_log(tmp_path, b"x" * size + b"\nlast\n"), None, 2)
    assert (found.lines[0].text, found.lines[0].after) == ("x" * MAX_LINE_BYTES, size - MAX_LINE_BYTES)
    assert (found.lines[1].number, found.lines[1].text) == (2, "last")


def test_search_lines_counts_and_pages(tmp_path: Path) -> None:
    path = _log(
        tmp_path, b"".join(b"row %d %s\n" % (n, b"Warning" if n % 3 == 0 else b"") for n in range(1, 31))
    )
    found = search_lines(path, "wARNING", 1, 4)
    assert (found.matches, found.total) == (10, 30)
    assert [line.number for line in found.lines] == [3, 6, 9, 12]
    assert [line.number for line in search_lines(path, "warning", 13, 2).lines] == [15, 18]


@pytest.mark.parametrize("text", [".*", "[a", "\\", "<b>", "é", "(?i)"])
def test_search_lines_is_literal(tmp_path: Path, text: str) -> None:
    found = search_lines(_log(tmp_path, f"nothing\nhas {text} here\n".encode()), text, 1, 9)
    assert _shown(found) == [(2, f"has {text} here")]


@pytest.mark.parametrize("at", [0, 5, BLOCK - 3, BLOCK, 2 * BLOCK - 1])
def test_search_lines_in_long_line(tmp_path: Path, at: int) -> None:
    content = b"x" * at + b"needle" + b"y" * (3 * BLOCK - at)
    [line] = search_lines(_log(tmp_path, b"first\n" + content + b"\nlast"), "needle", 1, 9).lines
    assert line.number == 2
    assert "needle" in line.text
    assert line.before + len(line.text) + line.after == len(content)


def test_search_lines_in_overwritten_part(tmp_path: Path) -> None:
    [line] = search_lines(_log(tmp_path, b"10% slow\r20% fast\r30% slow\n"), "fast", 1, 9).lines
    assert (line.text, line.before, line.after) == ("20% fast", 9, 8)
