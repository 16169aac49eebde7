"""Pure: the words of the messages."""

from __future__ import annotations

from mao_shared.models import Alarm, format_time
from mao_shared.models.notification import RUN_FAILED, RUN_LATE, RUN_MISSED, AlarmEvent

MAX_TITLE = 200  # characters
MAX_TEXT = 3000  # characters; several services refuse longer messages
_TITLES = {
    RUN_FAILED: "run failed",
    RUN_MISSED: "tick missed",
    RUN_LATE: "run did not start in time",
    "spike": "unexpected value",
    "level-shift": "values on a new level",
    "metric-unreadable": "value cannot be read",
    "round": "round needs attention",
    "check": "data check failed",
    "unpushed": "commits wait to be pushed",
    "disk": "disk is short of space",
}
_ENDS = {
    RUN_FAILED: "recovered",
    RUN_MISSED: "ticks run again",
    RUN_LATE: "runs start in time again",
    "check": "data check passes again",
}


def message_title(alarm: Alarm, event: AlarmEvent) -> str:
    """Return the subject of a message, one line, for example `[node-1] crawl: run failed`."""
    about = alarm.pipeline or alarm.dataset or alarm.subject
    what = _TITLES.get(alarm.kind, alarm.kind)
    if event == "over":
        what = _ENDS.get(alarm.kind, f"over: {what}")
    elif event == "reminder":
        what = f"still: {what}"
    where = f"{about}: " if about else ""
    title = f"[{alarm.node}] {where}{what}"
    return "".join(letter if letter.isprintable() else " " for letter in title)[:MAX_TITLE]


def message_text(alarm: Alarm, event: AlarmEvent) -> str:
    """Return the text of a message: what is known, what to do, and how to acknowledge it."""
    lines = [alarm.detail]
    if event == "over" and alarm.over is not None:
        lines.append(f"It ended at {format_time(alarm.over.replace(microsecond=0))}.")
    elif alarm.next:
        lines.append(f"Next: {alarm.next}")
    lines += ["", f"Raised: {format_time(alarm.raised_at.replace(microsecond=0))}"]
    facts = {
        "Pipeline": alarm.pipeline,
        "Step": alarm.step,
        "Dataset": alarm.dataset,
        "Run": alarm.run,
        "Metric": alarm.metric,
    }
    lines += [f"{name}: {value}" for name, value in facts.items() if value]
    if event != "over":
        lines.append(f"Acknowledge: maoctl alarm ack {alarm.id}")
    text = "\n".join(lines)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
