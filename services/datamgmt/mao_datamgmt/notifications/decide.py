"""Pure: which messages about an alarm are due, from the alarm, the rules, what was sent and the time.

An alarm's recipients are decided once, when it is new: channels and rules that are added later do not receive
old alarms. How they are told (reminders, quiet hours, failures in a row) follows the rules as they are now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from mao_shared.models import Alarm
from mao_shared.models.notification import (
    ENDLESS_KINDS,
    RUN_FAILED,
    AlarmEvent,
    Notice,
    QuietHours,
    Recipient,
    Rule,
)

BY_DEFAULT = Rule(name="default")  # how a channel is told about alarms that no rule matches


@dataclass(frozen=True, slots=True)
class Due:
    """A message that is due. `number`: of a reminder, from 1."""

    channel: str
    event: AlarmEvent
    number: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What is due now, and the alarm's notice afterwards.

    `notice` is None if nothing more will be sent. `again`: when to decide again if nothing changes before.
    """

    due: Sequence[Due]
    notice: Notice | None
    again: datetime | None = None


def matches(rule: Rule, alarm: Alarm) -> bool:
    wanted = ((rule.pipelines, alarm.pipeline), (rule.datasets, alarm.dataset), (rule.kinds, alarm.kind))
    return all(not names or name in names for names, name in wanted)


def route(alarm: Alarm, rules: Iterable[Rule], channels: Iterable[str]) -> dict[str, Rule]:
    """Return the channels that an alarm goes to, each with the rule that says how.

    All rules that match add their channels; of several that name a channel, the first by name counts. An
    alarm that no rule matches goes to all channels.
    """
    known = sorted(channels)
    matching = sorted((rule for rule in rules if matches(rule, alarm)), key=lambda rule: rule.name)
    if not matching:
        return dict.fromkeys(known, BY_DEFAULT)
    return {channel: rule for channel in known for rule in reversed(matching) if channel in rule.channels}


def quiet_until(quiet: QuietHours | None, now: datetime) -> datetime | None:
    """Return when the quiet hours that contain `now` end; None outside of them, or in an unknown zone."""
    if quiet is None:
        return None
    try:
        zone = ZoneInfo(quiet.timezone)
    except (KeyError, OSError, ValueError):
        return None
    start, end = quiet.times()
    today = now.astimezone(zone).date()
    for first in (today - timedelta(days=1), today):
        last = first if start < end else first + timedelta(days=1)
        begins = datetime.combine(first, start, zone).astimezone(UTC)
        ends = datetime.combine(last, end, zone).astimezone(UTC)
        if begins <= now < ends:
            return ends
    return None


@dataclass(slots=True)
class _Plan:
    """The messages and recipients decided so far, and the earliest time to decide again."""

    due: list[Due] = field(default_factory=list)
    recipients: list[Recipient] = field(default_factory=list)
    again: datetime | None = None

    def wait(self, recipient: Recipient, until: datetime | None) -> None:
        self.recipients.append(recipient)
        if until is not None:
            self.again = until if self.again is None else min(self.again, until)

    def send(self, recipient: Recipient, event: AlarmEvent, now: datetime, number: int = 0) -> Recipient:
        self.due.append(Due(recipient.channel, event, number))
        return recipient.model_copy(update={"sent": recipient.sent + 1, "at": now})


def decide(
    alarm: Alarm, notice: Notice, rules: Sequence[Rule], channels: Iterable[str], now: datetime
) -> Decision:
    """Decide what is due about an alarm; an acknowledged one is not mentioned any more."""
    if alarm.acknowledged is not None:
        return Decision([], None)
    routes = route(alarm, rules, channels)
    recipients = notice.recipients
    if recipients is None:
        recipients = [Recipient(channel=channel) for channel in routes]
    plan = _Plan()
    for recipient in recipients:
        rule = routes.get(recipient.channel)
        if rule is not None and alarm.over is not None:
            _tell_end(plan, alarm, recipient, rule, now)
        elif rule is not None:
            _tell_open(plan, alarm, recipient, rule, now)
    if not plan.recipients:
        return Decision(plan.due, None)
    return Decision(plan.due, notice.model_copy(update={"recipients": plan.recipients}), plan.again)


def _tell_open(plan: _Plan, alarm: Alarm, recipient: Recipient, rule: Rule, now: datetime) -> None:
    quiet = quiet_until(rule.quiet, now)
    if recipient.at is None:
        if not _enough_failures(alarm, rule):
            plan.wait(recipient, None)
            return
        if quiet is not None:
            plan.wait(recipient, quiet)
            return
        recipient = plan.send(recipient, "raised", now)
    elif rule.reminder is not None and now >= _reminder_at(recipient.at, rule.reminder, now):
        if quiet is not None:
            plan.wait(recipient, quiet)
            return
        recipient = plan.send(recipient, "reminder", now, recipient.sent)
    if rule.reminder is not None:
        plan.wait(recipient, _reminder_at(recipient.at or now, rule.reminder, now))
    elif alarm.kind not in ENDLESS_KINDS:
        plan.wait(recipient, None)


def _reminder_at(sent_at: datetime, reminder: float, now: datetime) -> datetime:
    """Return when to remind; after a clock was set back, as if the last message had been sent now."""
    return min(sent_at, now) + timedelta(seconds=reminder)


def _tell_end(plan: _Plan, alarm: Alarm, recipient: Recipient, rule: Rule, now: datetime) -> None:
    """Tell the end, once; before it the beginning, if there was no time for that."""
    if recipient.at is None and not _was_worth_telling(alarm, rule):
        return
    if (quiet := quiet_until(rule.quiet, now)) is not None:
        plan.wait(recipient, quiet)
        return
    if recipient.at is None:
        recipient = plan.send(recipient, "raised", now)
    if rule.ends:
        plan.send(recipient, "over", now)


def _was_worth_telling(alarm: Alarm, rule: Rule) -> bool:
    """Return False for an alarm that began and ended in quiet hours, or before enough runs had failed."""
    quiet = quiet_until(rule.quiet, alarm.raised_at)
    if quiet is not None and alarm.over is not None and alarm.over <= quiet:
        return False
    return _enough_failures(alarm, rule)


def _enough_failures(alarm: Alarm, rule: Rule) -> bool:
    return alarm.kind != RUN_FAILED or (alarm.count or 1) >= rule.failures
