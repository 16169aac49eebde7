"""Times, sizes, numbers, ids, strips and plots of pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mao_gateway.pages import formats, marks, plots
from mao_gateway.pages.forms import MAX_KEPT, MAX_KEPT_TEXT, Message, Messages, back_to
from mao_gateway.pages.plots import PlotPoint
from mao_shared.errors import InvalidInput

NOW = datetime(2026, 11, 30, 13, 32, tzinfo=UTC)
ZURICH = formats.Clock(NOW, ZoneInfo("Europe/Zurich"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (1, "now"),
        (90, "90 s ago"),
        (150, "2 min ago"),
        (4620, "77 min ago"),
        (36000, "10 h ago"),
        (86400 * 3, "3 days ago"),
        (-46800, "in 13 h"),
        (-30, "in 30 s"),
    ],
)
def test_ago(seconds: float, text: str) -> None:
    assert formats.ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_clock_shows_the_zone_and_utc() -> None:
    moment = datetime(2026, 11, 30, 3, 6, 41, tzinfo=UTC)
    assert ZURICH.full(moment) == "Mon 30 Nov 2026, 04:06:41 CET (03:06:41 UTC)"
    assert ZURICH.moment(moment) == "04:06 CET"
    assert ZURICH.moment(moment - timedelta(days=1)) == "Sun 29 Nov 04:06 CET"
    assert ZURICH.moment(moment - timedelta(days=401)) == "Sat 25 Oct 2025 05:06 CEST"
    assert 'datetime="2026-11-30T04:06:41+01:00"' in ZURICH.when(moment)
    assert ZURICH.when(None) == formats.NONE
    assert formats.Clock(NOW, ZoneInfo("UTC")).full(moment) == "Mon 30 Nov 2026, 03:06:41 UTC"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (8400, "8.4 kB"), (1_200_000_000, "1.2 GB"), (None, formats.NONE)],
)
def test_size(value: float | None, text: str) -> None:
    assert formats.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (14198, "14\u202f198"),
        (0.5, "0.5"),
        (49020.44, "49\u202f020"),
        (0.000123456, "0.0001235"),
        (191.25, "191.2"),
        (-1234567.0, "-1\u202f234\u202f567"),
        (1e-9, "1e-09"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (None, formats.NONE),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert formats.number(value) == text


def test_short_id_keeps_the_whole_id() -> None:
    assert formats.short_id("20261130T030000Z-chart-survey-9834ef27") == (
        "<b>20261130T030000Z-chart-survey-</b>9834ef27"
    )
    assert formats.short_id("a" * 40) == "a" * 10 + "<b>" + "a" * 30 + "</b>"
    assert formats.short_id("<b>\x1b") == "&lt;b&gt;\\x1b"


def test_strip_good_ticks_cost_as_much_as_one() -> None:
    def describe(index: int) -> tuple[str, str | None]:
        return f"failed <{index}>", f"/ui/runs/{index}"

    def draw(text: str) -> str:
        return str(marks.strip(text, "label", describe, lambda first, last: f"{last - first + 1} good"))

    assert len(draw("s" * 300)) - len(draw("s" * 10)) < 20
    drawn = draw("ssfs")
    assert drawn.count("<path") == 3
    assert 'href="/ui/runs/2"' in drawn
    assert "failed &lt;2&gt;" in drawn
    assert 'x="18"' in drawn
    assert 'viewBox="0 0 360 24"' in marks.strip("s", "", describe, lambda *_: "", places=40)
    assert marks.counted("ssfL") == "2 succeeded, 1 late, 1 failed"


@pytest.mark.parametrize(
    "values",
    [[], [None], [1.0], [5.0, 5.0], [1e300, -1e300], [0.0, None, 3.0], [float("nan")], [float("inf"), 1.0]],
)
def test_plot_any_values(values: list[float | None]) -> None:
    points = [PlotPoint(value, expected=1.0, band=0.5) for value in values]
    drawn = plots.plot(points, "a <label>", "ms", ["then", "now"])
    assert "a &lt;label&gt;" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert plots.sparkline(points, "x").startswith("<svg")


def test_plot_gap_interrupts_line() -> None:
    drawn = plots.plot([PlotPoint(1.0), PlotPoint(None), PlotPoint(2.0)], "x")
    line = drawn.split('class="line1" d="')[1].split('"')[0]
    assert line.count("M") == 2


def test_messages_are_bounded() -> None:
    messages = Messages()
    words = [messages.keep(Message(True, str(number))) for number in range(MAX_KEPT + 1)]
    assert messages.find(words[0]) is None
    assert messages.find(words[-1]) is not None
    assert messages.find(None) is None


@pytest.mark.parametrize(
    "target", ["https://example.org/", "//example.org", "/\\example.org", "javascript:alert(1)", "x", ""]
)
def test_back_to_only_own_pages(target: str) -> None:
    with pytest.raises(InvalidInput):
        back_to(target)


def test_back_to_replaces_the_message() -> None:
    assert back_to("/ui/runs?m=old&phase=failed", "new").headers["location"] == "/ui/runs?phase=failed&m=new"


def test_messages_do_not_keep_fields_without_limit() -> None:
    messages = Messages()
    small, large = (Message(False, "no", fields={"note": "x" * size}) for size in (100, MAX_KEPT_TEXT + 1))
    for message, fields in ((small, small.fields), (large, {})):
        found = messages.find(messages.keep(message))
        assert found is not None
        assert (found.text, found.fields) == ("no", fields)
