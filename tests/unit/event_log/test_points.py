"""Where in the log: times, durations, offsets, and which events are meant by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.event_log.choosing import SKEW, Range, Selection, chooser, resolved
from pipeline.topology.log_point import LogPoint, log_point
from tests.unit.event_log.test_expression import entry

NOW = datetime(2026, 11, 21, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("first", LogPoint(offset=0)),
        ("1500", LogPoint(offset=1500)),
        ("2h", LogPoint(ago=timedelta(hours=2))),
        ("1.5m", LogPoint(ago=timedelta(seconds=90))),
        ("2027-01-31T06:00+01:00", LogPoint(time=datetime(2027, 1, 31, 5, tzinfo=UTC))),
        ("2027-01-31T06:00Z", LogPoint(time=datetime(2027, 1, 31, 6, tzinfo=UTC))),
    ],
)
def test_a_point_is_read(text: str, point: LogPoint) -> None:
    assert log_point(text) == point


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2 h", "-5", "1e3", "2027-13-01", "99999999999999999999", "9" * 30 + "d"]
)
def test_what_is_no_point_is_refused_with_its_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"is none of: first|is longer than"):
        log_point(text)


@given(st.text(max_size=40))
def test_any_text_is_a_point_or_a_value_error(text: str) -> None:
    try:
        found = log_point(text)
    except ValueError:
        return
    assert isinstance(found.resolved(NOW), int | datetime)


def test_a_time_is_looked_for_a_little_earlier_in_the_stream_and_judged_by_the_event() -> None:
    bounds = resolved(Selection(since="2h", until="1h"), NOW)

    assert bounds.start == NOW - timedelta(hours=2) - SKEW
    assert bounds.end is None, "what is late may come at the very end"
    chosen = chooser(Selection(since="2h", until="1h"), bounds)
    at = {
        minutes: entry(cloudEvents_time=(NOW - timedelta(minutes=minutes)).isoformat())
        for minutes in (121, 120, 61, 60)
    }
    assert [minutes for minutes, each in at.items() if chosen(each)] == [120, 61]


def test_offsets_bound_what_is_read() -> None:
    assert resolved(Selection(since="10", until="20"), NOW) == Range(10, 20)
    assert Range(10, 20).end == 19
    assert Range().start == 0


@pytest.mark.parametrize(("since", "until"), [("1h", "2h"), ("20", "10"), ("5", "5"), ("soon", ""), ("", "later")])
def test_bounds_the_wrong_way_round_are_refused(since: str, until: str) -> None:
    with pytest.raises(ConfigurationError):
        resolved(Selection(since=since, until=until), NOW)


def test_types_are_words_and_patterns() -> None:
    def chosen(*types: str) -> bool:
        return chooser(Selection(types=types), Range())(entry())

    assert chosen("order.created")
    assert chosen("payment.taken", "order.*")
    assert chosen("#")
    assert not chosen("order")
    assert not chosen("payment.*")
