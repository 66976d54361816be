"""When an event is due, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.codec import Codec
from pipeline.codec.delay import LADDER, due_time, set_out
from pipeline.errors import InvalidDelay, NoDelayLadder, Unroutable
from pipeline.event import Event, utc_now
from pipeline.message import DELAY_DUE, DELAY_PREFIX, DELAY_TO
from pipeline.properties import Properties, decode_properties, encode_properties
from pipeline.topology.load import load_text
from pipeline.worker.context import Context, Publish

TOPOLOGY = """\
version: 1
exchanges: {events: {}}
events: {order.due: {}, order.lost: {}}
subscriptions: {payments: {events: [order.due]}}
"""
CODEC = Codec(load_text(f"{TOPOLOGY}delay: {{max: 1h}}\n").topology, 1024)
EVENT = Event("order.due", {"n": 1}, "e1")


def test_without_a_delay_nothing_is_changed() -> None:
    assert due_time(None, None) is None
    assert CODEC.encode(EVENT).exchange == "events"


@pytest.mark.parametrize("after", [90, 90.0, timedelta(seconds=90)])
def test_a_delay_counts_from_now(after: float | timedelta) -> None:
    before = utc_now()

    due = due_time(after, None)

    assert due is not None
    assert before + timedelta(seconds=90) <= due <= utc_now() + timedelta(seconds=90)


def test_a_time_is_taken_in_any_zone() -> None:
    at = datetime(2027, 1, 31, 6, tzinfo=timezone(timedelta(hours=1)))

    assert due_time(None, at) == datetime(2027, 1, 31, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "at", "said"),
    [
        (-1, None, "not negative"),
        (float("nan"), None, "must be seconds"),
        (float("inf"), None, "must be seconds"),
        (timedelta(days=367), None, "more than a year"),
        (1, datetime(2027, 1, 1, tzinfo=UTC), "exclude each other"),
        (None, datetime(2027, 1, 1), "with a time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_what_can_not_be_a_delay_is_refused(after: float | timedelta | None, at: datetime | None, said: str) -> None:
    with pytest.raises(InvalidDelay, match=said):
        due_time(after, at)
    with pytest.raises(InvalidDelay, match=said):
        Publish("order.due", {}, after=after, at=at)


def test_a_delayed_message_says_when_and_where_to_and_keeps_its_own_headers() -> None:
    due = utc_now() + timedelta(seconds=5)

    message = CODEC.encode(EVENT, due)

    headers = decode_properties(message.properties).headers
    assert message.exchange == LADDER
    assert headers[DELAY_DUE] == (due - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert headers[DELAY_TO] == "events"
    assert headers["cloudEvents_specversion"] == "1.0"


def test_what_waited_before_it_was_published_is_taken_off() -> None:
    # given a message that was made for later, and lay in an outbox
    message = CODEC.encode(EVENT, utc_now() + timedelta(seconds=10))
    properties = decode_properties(message.properties)
    aged = {**properties.headers, DELAY_DUE: properties.headers[DELAY_DUE] - 7_000_000}

    # when it sets out seven seconds later, then it waits three
    encoded = encode_properties(Properties("e1", headers=aged))
    sent = set_out(type(message)(LADDER, "order.due", b"", encoded, "e1"))
    levels = {name: on for name, on in decode_properties(sent.properties).headers.items() if name[-1].isdigit()}
    waits = sum(2 ** int(name.removeprefix(DELAY_PREFIX)) for name, on in levels.items() if on)
    assert 1 <= waits <= 3  # it may take a moment to get here


def test_longer_than_the_longest_is_refused_with_the_key_that_says_so() -> None:
    with pytest.raises(InvalidDelay, match=r"3601 s is longer than the longest, 1h \(`delay: \{max: 1h\}`"):
        CODEC.encode(EVENT, utc_now() + timedelta(seconds=3600.5))


def test_without_a_ladder_the_error_says_what_to_add() -> None:
    codec = Codec(load_text(TOPOLOGY).topology, 1024)

    with pytest.raises(NoDelayLadder, match=r"add `delay: \{max: 30d\}` to a topology file"):
        codec.encode(EVENT, utc_now() + timedelta(seconds=1))
    assert set_out(codec.encode(EVENT, utc_now())).exchange == "events"  # due at once needs none


def test_an_event_that_nobody_takes_is_refused_before_it_waits() -> None:
    with pytest.raises(Unroutable, match=r"no queue of the topology takes 'order\.lost'"):
        CODEC.encode(Event("order.lost", {}, "e2"), utc_now() + timedelta(seconds=1))


def test_a_handler_publishes_for_later() -> None:
    async def none(_: object) -> list[object]:
        return []

    context = Context("payments", "e1", 1, none)
    at = datetime(2027, 1, 31, 6, tzinfo=UTC)

    context.publish("order.due", {}, at=at)

    assert context.follow_ups is not None
    assert context.follow_ups[0].due == at
