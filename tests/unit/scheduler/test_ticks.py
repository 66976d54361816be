"""When schedules tick: by the clock of their time zone, also when that clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scheduler.ticks import LATE, due_ticks, next_ticks
from pipeline.topology.model import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
# In Berlin 2027 the clock goes from 2:00 to 3:00 on 28 March, and from 3:00 back to 2:00 on 31 October.
SPRING, AUTUMN = datetime(2027, 3, 28, tzinfo=BERLIN), datetime(2027, 10, 31, tzinfo=BERLIN)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu"]

moments = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
minutes = st.sampled_from(["*", "*/7", "0", "30", "0,30", "5-10"])
hours = st.sampled_from(["*", "*/3", "0", "2", "2,3", "1-4", "23"])
days = st.sampled_from(["*", "1", "15", "L", "*/2"])
weekdays = st.sampled_from(["*", "MON-FRI", "SUN", "MON#2"])
rules = st.builds(lambda minute, hour, day, week: f"{minute} {hour} {day} * {week}", minutes, hours, days, weekdays)


def cron(rule: str, zone: str = "Europe/Berlin", missed: str = "once") -> Schedule:
    """A schedule by the clock."""
    return Schedule("x", "report.due", {}, rule, zone, missed=missed)


def every(seconds: int, missed: str = "once") -> Schedule:
    """A schedule by period."""
    return Schedule("x", "report.due", {}, every=seconds, missed=missed)


def local(schedule: Schedule, after: datetime, count: int) -> list[str]:
    """The next ticks as its own clock shows them."""
    return [
        tick.astimezone(ZoneInfo(schedule.timezone)).strftime("%d %H:%M%z")
        for tick in next_ticks(schedule, after, count)
    ]


@given(rules, st.sampled_from(ZONES), moments)
def test_ticks_only_go_on_and_are_the_same_wherever_one_begins(rule: str, zone: str, after: datetime) -> None:
    schedule = cron(rule, zone)

    found = next_ticks(schedule, after, 6)

    assert all(first < second for first, second in pairwise([after, *found]))
    assert all(tick.second == tick.microsecond == 0 for tick in found)
    # a scheduler that begins anew at any tick, or shortly before one, finds the same
    for number, tick in enumerate(found[:-1]):
        assert next_ticks(schedule, tick, 1) == [found[number + 1]]
        assert next_ticks(schedule, tick - timedelta(microseconds=1), 1) == [tick]


@given(hours, st.sampled_from(["0", "30"]), moments)
def test_a_tick_is_what_the_clock_shows_unless_the_clock_skips_it(hour: str, minute: str, after: datetime) -> None:
    schedule = cron(f"{minute} {hour} * * *")

    for tick in next_ticks(schedule, after, 5):
        shown = tick.astimezone(BERLIN)
        behind_a_gap = shown.utcoffset() != (tick - timedelta(hours=1)).astimezone(BERLIN).utcoffset()
        assert shown.minute == int(minute) or behind_a_gap


@given(st.integers(1, 366 * 86_400), moments)
def test_a_period_counts_from_1970_for_everybody(seconds: int, after: datetime) -> None:
    first, second = next_ticks(every(seconds), after, 2)

    assert first > after
    assert first - after <= timedelta(seconds=seconds)
    assert second - first == timedelta(seconds=seconds)
    assert (first - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(seconds=seconds) == timedelta()


def test_a_fixed_time_in_the_gap_comes_at_its_end_and_once() -> None:
    assert local(cron("30 2 * * *"), SPRING, 2) == ["28 03:00+0200", "29 02:30+0200"]
    assert local(cron("0,30 2 * * *"), SPRING, 2) == ["28 03:00+0200", "29 02:00+0200"]


def test_a_fixed_time_in_the_doubled_hour_comes_the_first_time_only() -> None:
    assert local(cron("30 2 * * *"), AUTUMN, 2) == ["31 02:30+0200", "01 02:30+0100"]
    # also for a scheduler that begins while the hour is repeated
    again = datetime(2027, 10, 31, 2, 15, tzinfo=BERLIN, fold=1)
    assert local(cron("30 2 * * *"), again, 1) == ["01 02:30+0100"]


def test_a_rule_for_every_hour_goes_by_the_time_that_passes() -> None:
    assert local(cron("0 * * * *"), SPRING, 3) == ["28 01:00+0100", "28 03:00+0200", "28 04:00+0200"]
    assert local(cron("0 * * * *"), AUTUMN, 4) == [
        "31 01:00+0200",
        "31 02:00+0200",
        "31 02:00+0100",
        "31 03:00+0100",
    ]


def test_a_rule_that_never_comes_again_has_no_ticks() -> None:
    never = cron("0 0 */31 * MON#5")  # the first of a month that is its fifth Monday

    assert next_ticks(never, SPRING, 1) == []
    assert list(due_ticks(never, SPRING, AUTUMN)) == []


NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("missed", "found"),
    [
        ("all", [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("once", [0]),
        ("skip", [1, 0]),  # within the minute in which another scheduler may be taking over
    ],
)
def test_what_was_missed_is_made_up_for_as_declared(missed: str, found: list[int]) -> None:
    # given a tick a minute, and no scheduler for the last ten and a half
    last = NOW - timedelta(minutes=11)

    due = list(due_ticks(every(60, missed), last, NOW))

    assert due == [NOW - timedelta(minutes=ago) for ago in found]


@pytest.mark.parametrize("missed", ["all", "once", "skip"])
def test_a_short_pause_misses_nothing(missed: str) -> None:
    last = NOW - timedelta(seconds=30)

    due = list(due_ticks(every(10, missed), last, NOW + timedelta(seconds=3)))

    assert due == [NOW - timedelta(seconds=ago) for ago in (20, 10, 0)]


@pytest.mark.parametrize("missed", ["all", "once", "skip"])
def test_nothing_is_due_before_its_time(missed: str) -> None:
    schedule = cron("0 6 * * *", missed=missed)
    last = datetime(2027, 1, 1, 6, tzinfo=BERLIN)

    assert list(due_ticks(schedule, last, last + timedelta(hours=23, minutes=59))) == []


@given(rules, moments, st.timedeltas(timedelta(), timedelta(days=40)))
def test_of_all_that_was_missed_once_takes_the_last(rule: str, last: datetime, away: timedelta) -> None:
    now = last + away
    everything = list(islice(due_ticks(cron(rule, missed="all"), last, now), 100_000))

    once = list(due_ticks(cron(rule, missed="once"), last, now))
    skip = list(due_ticks(cron(rule, missed="skip"), last, now))

    assert everything == next_ticks(cron(rule), last, len(everything))
    if everything and everything[0] < now - LATE:
        assert once == everything[-1:]
    else:
        assert once == everything
    assert skip == [tick for tick in everything if tick >= now - LATE]


def test_a_year_of_seconds_is_passed_over_at_once() -> None:
    found = list(due_ticks(every(1), NOW - timedelta(days=365), NOW))

    assert found == [NOW]
