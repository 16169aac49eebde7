"""Who is told about an alarm, and when, by a clock that is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mao_datamgmt.notifications.decide import Due, decide, matches, quiet_until, route
from mao_datamgmt.notifications.texts import MAX_TEXT, message_text, message_title
from mao_shared.models import Acknowledgement, Alarm
from mao_shared.models.notification import Notice, QuietHours, Recipient, Rule

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NIGHT = QuietHours(start="22:00", end="07:00", timezone="Europe/Zurich")  # 21:00 to 6:00 UTC in winter


def alarm(kind: str = "run-failed", **changes: Any) -> Alarm:
    fields: dict[str, Any] = {"pipeline": "crawl", "dataset": "images", "detail": "It failed.", "count": 1}
    return Alarm(id="a1", kind=kind, node="node-1", **{"raised_at": NOW, **fields, **changes})


class Story:
    """An alarm over time: `tell` decides and keeps the notice, as the notifier does."""

    def __init__(self, rules: Sequence[Rule] = (), channels: Sequence[str] = ("mail",)) -> None:
        self.rules, self.channels = rules, channels
        self.notice: Notice | None = Notice(alarm="a1", created_at=NOW)
        self.again: datetime | None = None

    def tell(self, about: Alarm, now: datetime = NOW) -> list[Due]:
        if self.notice is None:
            return []
        decision = decide(about, self.notice, self.rules, self.channels, now)
        self.notice, self.again = decision.notice, decision.again
        return list(decision.due)


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def test_decide_without_rule_all_channels_are_told_once_and_of_the_end_once() -> None:
    story = Story(channels=["ntfy", "mail"])
    assert story.tell(alarm()) == [Due("mail", "raised"), Due("ntfy", "raised")]
    assert story.tell(alarm(count=2), at(1)) == []
    over = alarm(over=at(2))
    assert story.tell(over, at(2)) == [Due("mail", "over"), Due("ntfy", "over")]
    assert story.notice is None


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"pipelines": ["crawl"]}, True),
        ({"pipelines": ["other"]}, False),
        ({"datasets": ["images", "x"]}, True),
        ({"datasets": ["x"]}, False),
        ({"kinds": ["disk", "run-failed"]}, True),
        ({"kinds": ["disk"]}, False),
        ({"pipelines": ["crawl"], "kinds": ["disk"]}, False),
    ],
)
def test_decide_rule_matches_by_pipeline_dataset_and_kind(rule: dict[str, Any], fits: bool) -> None:
    assert matches(Rule(name="r", **rule), alarm()) is fits


def test_decide_several_rules_add_channels_and_the_first_by_name_says_how() -> None:
    second = Rule(name="b", channels=["mail", "ntfy"], reminder=3600)
    first = Rule(name="a", channels=["mail"])
    assert route(alarm(), [second, first], ["ntfy", "mail", "chat"]) == {"mail": first, "ntfy": second}


def test_decide_rule_without_channels_mutes_and_unmatched_alarms_go_to_all() -> None:
    mute = Rule(name="mute", kinds=["spike"])
    assert Story([mute]).tell(alarm("spike")) == []
    assert Story([mute]).tell(alarm("disk")) == [Due("mail", "raised")]


def test_decide_channel_added_later_is_not_told_of_old_alarms() -> None:
    story = Story()
    story.tell(alarm())
    story.channels = ["mail", "new"]
    assert story.tell(alarm(), at(1)) == []
    assert story.tell(alarm(over=at(2)), at(2)) == [Due("mail", "over")]


def test_decide_removed_channel_and_alarm_without_any_are_forgotten() -> None:
    story = Story()
    story.tell(alarm())
    story.channels = []
    assert story.tell(alarm(over=NOW), NOW) == []
    assert story.notice is None
    assert Story(channels=[]).tell(alarm()) == []


def test_decide_reminders_are_numbered_and_end_with_the_acknowledgement() -> None:
    story = Story([Rule(name="r", channels=["mail"], reminder=3600)])
    assert story.tell(alarm()) == [Due("mail", "raised")]
    assert story.again == at(1)
    assert story.tell(alarm(), at(0.9)) == []
    assert story.again == at(1)
    assert story.tell(alarm(), at(1)) == [Due("mail", "reminder", 1)]
    assert story.tell(alarm(), at(2.5)) == [Due("mail", "reminder", 2)]
    assert story.again == at(3.5)
    seen = alarm(acknowledged=Acknowledgement(at=at(3)))
    assert story.tell(seen, at(4)) == []
    assert story.notice is None


def test_decide_acknowledged_alarm_is_quiet_at_its_end_too() -> None:
    story = Story()
    story.tell(alarm())
    assert story.tell(alarm(over=at(1), acknowledged=Acknowledgement(at=at(1))), at(1)) == []
    assert story.notice is None


def test_decide_quiet_hours_delay_the_message_to_their_end() -> None:
    story = Story([Rule(name="r", channels=["mail"], quiet=NIGHT)])
    night = datetime(2026, 1, 31, 22, tzinfo=UTC)
    assert story.tell(alarm(), night) == []
    morning = datetime(2026, 2, 1, 6, tzinfo=UTC)
    assert story.again == morning
    assert story.tell(alarm(), morning) == [Due("mail", "raised")]


def test_decide_alarm_that_ends_in_quiet_hours_is_never_mentioned() -> None:
    story = Story([Rule(name="r", channels=["mail"], quiet=NIGHT)])
    night = datetime(2026, 1, 31, 22, tzinfo=UTC)
    story.tell(alarm(raised_at=night), night)
    assert story.tell(alarm(raised_at=night, over=night), night) == []
    assert story.notice is None


def test_decide_alarm_that_ended_before_anybody_was_told_is_told_in_order() -> None:
    assert Story().tell(alarm(over=at(1)), at(1)) == [Due("mail", "raised"), Due("mail", "over")]
    story = Story([Rule(name="r", channels=["mail"], quiet=NIGHT, ends=False)])
    evening, night = datetime(2026, 1, 31, 20, tzinfo=UTC), datetime(2026, 1, 31, 23, tzinfo=UTC)
    over = alarm(raised_at=evening, over=night)
    assert story.tell(over, night) == []
    assert story.again is not None
    assert story.tell(over, story.again) == [Due("mail", "raised")]


def test_decide_end_and_reminder_wait_for_the_end_of_quiet_hours() -> None:
    night, morning = datetime(2026, 1, 31, 23, tzinfo=UTC), datetime(2026, 2, 1, 6, tzinfo=UTC)
    story = Story([Rule(name="r", channels=["mail"], quiet=NIGHT, reminder=3600)])
    assert story.tell(alarm(), NOW) == [Due("mail", "raised")]
    assert story.tell(alarm(), night) == []
    assert story.again == morning
    assert story.tell(alarm(over=night), night) == []
    assert story.tell(alarm(over=night), morning) == [Due("mail", "over")]


def test_decide_failures_in_a_row_count_before_anybody_is_told() -> None:
    story = Story([Rule(name="r", channels=["mail"], failures=3)])
    assert story.tell(alarm(count=1)) == []
    assert story.tell(alarm(count=2)) == []
    assert story.tell(alarm(count=3)) == [Due("mail", "raised")]
    early = Story([Rule(name="r", channels=["mail"], failures=3)])
    early.tell(alarm(count=2))
    assert early.tell(alarm(count=2, over=at(1)), at(1)) == []
    other = Story([Rule(name="r", channels=["mail"], failures=3)])
    assert other.tell(alarm("run-missed", count=1)) == [Due("mail", "raised")]


def test_decide_rule_may_leave_out_ends_and_endless_alarms_need_no_notice() -> None:
    story = Story([Rule(name="r", channels=["mail"], ends=False)])
    story.tell(alarm())
    assert story.tell(alarm(over=at(1)), at(1)) == []
    spike = Story()
    assert spike.tell(alarm("spike")) == [Due("mail", "raised")]
    assert spike.notice is None


def test_decide_reminder_follows_a_clock_that_was_set_back() -> None:
    story = Story([Rule(name="r", channels=["mail"], reminder=3600)])
    story.notice = Notice(
        alarm="a1", created_at=at(100), recipients=[Recipient(channel="mail", sent=1, at=at(100))]
    )
    assert story.tell(alarm(), NOW) == []
    assert story.again == at(1)


# quiet hours


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        (NIGHT, "2026-01-31T20:59", None),
        (NIGHT, "2026-01-31T21:00", "2026-02-01T06:00"),
        (NIGHT, "2026-02-01T05:59", "2026-02-01T06:00"),
        (NIGHT, "2026-02-01T06:00", None),
        (NIGHT, "2026-07-01T20:30", "2026-07-02T05:00"),  # summer
        (NIGHT, "2026-03-28T22:00", "2026-03-29T05:00"),  # clocks go forward in this night
        (NIGHT, "2026-10-24T21:00", "2026-10-25T06:00"),  # and back in this one
        (QuietHours(start="12:00", end="13:00"), "2026-01-31T12:30", "2026-01-31T13:00"),
        (QuietHours(start="12:00", end="13:00"), "2026-01-31T13:00", None),
        (None, "2026-01-31T13:00", None),
    ],
)
def test_quiet_until_knows_zones_and_midnight(quiet: QuietHours | None, now: str, until: str | None) -> None:
    def utc(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert quiet_until(quiet, utc(now)) == (utc(until) if until else None)


@given(st.integers(0, 4 * 366 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes)))
def test_quiet_until_ends_outside_of_quiet_hours(now: datetime) -> None:
    until = quiet_until(NIGHT, now)
    if until is not None:
        assert now < until <= now + timedelta(hours=10)
        assert quiet_until(NIGHT, until) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "22:00", "end": "22:00"},
        {"start": "24:00", "end": "07:00"},
        {"start": "7", "end": "08:00"},
        {"start": "22:00", "end": "07:00", "timezone": "Europe/Nowhere"},
        {"start": "22:00", "end": "07:00", "timezone": "../../etc/passwd"},
    ],
)
def test_quiet_hours_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        QuietHours.model_validate(wrong)


def test_quiet_until_unknown_zone_of_a_stored_rule_is_not_quiet() -> None:
    stored = QuietHours.model_construct(start="00:00", end="23:59", timezone="Europe/Nowhere")
    assert quiet_until(stored, NOW) is None


# texts


def test_texts_name_what_happened_and_the_next_step() -> None:
    found = alarm(next="See it: maoctl run show r1", run="r1")
    assert message_title(found, "raised") == "[node-1] crawl: run failed"
    assert message_title(found, "reminder") == "[node-1] crawl: still: run failed"
    assert message_title(found, "over") == "[node-1] crawl: recovered"
    text = message_text(found, "raised")
    assert text.startswith("It failed.\nNext: See it: maoctl run show r1\n")
    assert "Acknowledge: maoctl alarm ack a1" in text
    over = message_text(found.model_copy(update={"over": at(1)}), "over")
    assert "It ended at 2026-01-31T13:00:00Z." in over
    assert "ack" not in over


def test_texts_title_is_one_printable_line() -> None:
    found = alarm(
        "service", pipeline=None, dataset=None, subject="a\r\nBcc: eve@lab.example\x1b[2J" + "x" * 300
    )
    title = message_title(found, "raised")
    assert title.isprintable()
    assert len(title) == 200


def test_texts_are_cut_to_what_services_accept() -> None:
    assert len(message_text(alarm(detail="x" * 10_000), "raised")) == MAX_TEXT
