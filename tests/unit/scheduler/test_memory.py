"""What a scheduler remembers, and hands to the next one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.scheduler.memory import Memory, from_json, merge
from pipeline.scheduler.running import event_of
from pipeline.topology.model import Schedule

NIGHTLY = Schedule("nightly", "report.due", {"n": 1}, "0 6 * * *", "Europe/Berlin")
TICK = datetime(2027, 1, 1, 5, tzinfo=UTC)


def test_it_travels_as_json() -> None:
    memory = Memory().after(NIGHTLY, TICK)

    assert from_json(memory.to_json()) == memory
    assert from_json(memory.to_json()).last(NIGHTLY) == TICK


def test_the_later_tick_counts_and_nothing_is_forgotten() -> None:
    other = Schedule("other", "report.due", {}, every=60)
    early, late = Memory().after(NIGHTLY, TICK), Memory().after(NIGHTLY, TICK + timedelta(days=1))

    merged = merge([late, early.after(other, TICK), Memory()])

    assert merged == merge([early.after(other, TICK), late])
    assert merged.last(NIGHTLY) == TICK + timedelta(days=1)
    assert merged.last(other) == TICK


def test_under_another_rule_it_means_nothing() -> None:
    memory = Memory().after(NIGHTLY, TICK)

    assert memory.last(Schedule("nightly", "report.due", {}, "0 7 * * *", "Europe/Berlin")) is None
    assert memory.last(Schedule("nightly", "report.due", {}, "0 6 * * *", "UTC")) is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"done": {"x": 7}}', b'{"done": {"x": {"rule": "", "tick": "?"}}}']
)
def test_what_can_not_be_read_is_not_remembered(body: bytes) -> None:
    assert from_json(body) == Memory()


def test_a_tick_is_one_event_whoever_publishes_it() -> None:
    summer = datetime(2027, 7, 1, 6, tzinfo=UTC).astimezone()

    assert event_of(NIGHTLY, TICK) == event_of(NIGHTLY, TICK)
    assert event_of(NIGHTLY, summer).id == "nightly@2027-07-01T06:00:00Z"
    assert event_of(NIGHTLY, summer).time == summer
    assert event_of(NIGHTLY, TICK).source == "/schedules/nightly"
