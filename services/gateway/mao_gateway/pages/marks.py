"""States as icon, word and colour, and strips of ticks as SVG. Pure.

A state is a shape, a colour and a word at once: success is quiet, and only exceptions stand out. A run of
neighbours in the same state is one path, so a strip of 300 good ticks costs as much as one of ten; each
exception is a link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from markupsafe import Markup

from mao_shared.text import harmless_line

STATES: dict[str, tuple[str, str]] = {
    "succeeded": ("ok", "ok"),
    "late": ("late", "warn"),
    "queued": ("waiting", "off"),
    "pending": ("waiting", "off"),
    "preparing": ("waiting", "off"),
    "ready": ("waiting", "off"),
    "starting": ("running", "run"),
    "running": ("running", "run"),
    "exited": ("running", "run"),
    "publishing": ("running", "run"),
    "failed": ("failed", "bad"),
    "missed": ("missed", "warn"),
    "skipped": ("skipped", "off"),
    "cancelled": ("cancelled", "off"),
    "lost": ("lost", "lost"),
    "undecided": ("lost", "lost"),
    "quarantined": ("quarantined", "warn"),
    "not heard": ("stale", "off"),
    "paused": ("paused", "off"),
    "agreed": ("agreed", "ok"),
    "decided": ("agreed", "ok"),
    "differed": ("differed", "warn"),
    "absent": ("missed", "off"),
    "open": ("waiting", "run"),
    "closed": ("waiting", "run"),
}
"""State → icon (`#i-…` in templates/icons.svg) and colour token (`.s-…` in style.css)."""

MARKS = {"L": "late", "f": "failed", "m": "missed", "r": "running", "w": "waiting", "x": "cancelled"}
MARKS |= {"l": "lost", "q": "quarantined", "k": "skipped", "?": "unknown"}
"""Letter of a strip → mark (`#t-…`); `s`, succeeded, is drawn as a path."""
WIDTH = 9  # of a mark, in pixels


def icon(name: str, size: str = "icon") -> Markup:
    """Return an icon, which a word beside it explains."""
    return Markup('<svg class="{}" viewBox="0 0 16 16" aria-hidden="true"><use href="#i-{}"/></svg>').format(
        size, name
    )


def state(name: str, word: str | None = None, *, href: str | None = None, pill: bool = False) -> Markup:
    """Return a state as icon, colour and word; a link if `href` is given."""
    shape, colour = STATES.get(name, ("waiting", "off"))
    classes = f"state s-{colour}" + (" pill" if pill else "")
    text = harmless_line(word or name)
    if href is None:
        return Markup('<span class="{}">{}{}</span>').format(classes, icon(shape), text)
    return Markup('<a class="{}" href="{}">{}{}</a>').format(classes, href, icon(shape), text)


def strip(
    marks: str,
    label: str,
    describe: Callable[[int], tuple[str, str | None]],
    describe_good: Callable[[int, int], str],
    places: int = 1,
) -> Markup:
    """Return a strip of ticks, the newest at the right of at least `places` places.

    Args:
        marks: a letter a tick (`MARKS`, or `s`).
        label: what the strip tells, as text.
        describe: index of an exception → what happened, and the address of its run.
        describe_good: first and last index of a run of good ticks → what is said of them.
    """
    before = max(0, places - len(marks))
    width = (before + len(marks)) * WIDTH
    parts = [Markup('<path class="t-base" d="M0 22.5h{}"/>').format(width - 2)]
    at = 0
    for letter, group in groupby(marks):
        count = len(list(group))
        if letter == "s":
            path = Markup('<g><title>{}</title><path class="t-ok" d="M{} 16.5h{}"/></g>')
            good = describe_good(at, at + count - 1)
            parts.append(path.format(good, (before + at) * WIDTH, count * WIDTH))
        else:
            parts.extend(
                _exception(before + index, letter, *describe(index)) for index in range(at, at + count)
            )
        at += count
    return Markup(
        '<svg class="strip" role="group" aria-label="{}" viewBox="0 0 {} 24" width="{}" height="24">{}</svg>'
    ).format(label, width, width, Markup("").join(parts))


def _exception(place: int, letter: str, text: str, href: str | None) -> Markup:
    text = harmless_line(text)
    use = Markup('<title>{}</title><use href="#t-{}" x="{}"/>').format(
        text, MARKS.get(letter, "unknown"), place * WIDTH
    )
    if href is None:
        return Markup("<g>{}</g>").format(use)
    return Markup('<a href="{}" aria-label="{}">{}</a>').format(href, text, use)


def counted(marks: Sequence[str]) -> str:
    """Return how many ticks are in which state, as text: `36 succeeded, 1 late`."""
    words = {"s": "succeeded", **MARKS}
    found = {letter: marks.count(letter) for letter in words}
    return ", ".join(f"{count} {words[letter]}" for letter, count in found.items() if count) or "no ticks yet"
