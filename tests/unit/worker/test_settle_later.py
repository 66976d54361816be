"""A retry that waits longer than its subscription's own delays: through the delay ladder, where there is one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline import Retry
from pipeline.amqp.frames import USUAL_FRAME_MAX, properties_limit
from pipeline.codec.delay import LADDER, set_out
from pipeline.message import (
    ATTEMPT,
    DELAY_BACK_TO,
    DELAY_DUE,
    DELAY_PREFIX,
    DELAY_TO,
    ERROR,
    EXCHANGE,
    NOT_BEFORE,
    ROUTING_KEY,
    Message,
)
from pipeline.properties import Properties, decode_properties, encode_properties
from pipeline.retry import failure_of
from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import Delay
from pipeline.worker.settle import another_round, settle_failure
from pipeline.worker.work import Failed
from tests.support.ladder import journey, waits
from tests.unit.worker.works import PAYMENTS, delivery

LIMIT = properties_limit(USUAL_FRAME_MAX)
DAY = Delay(86_400)


def copied(after: float, delay: Delay | None, limit: int = LIMIT, **headers: Any) -> Message:
    """The copy when the handler asks for another attempt after so many seconds."""
    properties = Properties(message_id="order-7", type="order.created", headers=headers)
    came = delivery(properties=encode_properties(properties), body=b"{}")
    failed = Failed(came, failure_of(Retry("later", after)), 1, "order-7", "order.created")
    copy = settle_failure(PAYMENTS, failed, limit, delay).copy
    assert copy is not None
    return copy


def headers_of(message: Message) -> dict[str, Any]:
    """What its headers say."""
    return dict(decode_properties(message.properties).headers)


def test_a_wait_beyond_the_longest_delay_takes_the_ladder_back_to_the_work_queue() -> None:
    copy = copied(3600, DAY)

    headers = headers_of(copy)
    assert (copy.exchange, copy.routing_key) == (LADDER, "order.created")
    assert headers[DELAY_BACK_TO] == "payments"
    assert abs(headers[DELAY_DUE] / 1_000_000 - time.time() - 3600) < 5
    assert headers[ATTEMPT] == 2
    assert NOT_BEFORE not in headers


def test_its_way_ends_in_the_work_queue_just_in_time() -> None:
    topology = load_text("""\
version: 1
exchanges: {events: {}}
events: {order.created: {}}
subscriptions: {payments: {events: [order.created]}}
delay: {max: 1d}
""").topology

    queues, end = journey(expand(topology), copied(3600, DAY))

    assert end == ("queue", "payments")
    assert 3590 <= waits(expand(topology), queues) <= 3600  # it may take a moment to get here


@pytest.mark.parametrize(("after", "delay"), [(4.0, DAY), (5.0, DAY), (3600.0, None)])
def test_otherwise_it_takes_the_subscriptions_own_delays(after: float, delay: Delay | None) -> None:
    assert copied(after, delay).routing_key.startswith("payments.retry.")


def test_a_wait_beyond_the_ladder_goes_several_rounds() -> None:
    # given a ladder of a day, and a handler that asks for three
    copy = copied(3 * 86_400, DAY)

    # then it comes back after one, and says that it is too early
    headers = headers_of(copy)
    assert abs(headers[DELAY_DUE] / 1_000_000 - time.time() - 86_400) < 5
    assert abs(headers[NOT_BEFORE] / 1000 - time.time() - 3 * 86_400) < 5

    # and when it does, it waits again
    again = another_round(PAYMENTS, delivery(properties=copy.properties), 2 * 86_400, LIMIT, DAY)
    assert again.exchange == LADDER
    assert abs(headers_of(again)[NOT_BEFORE] / 1000 - time.time() - 2 * 86_400) < 5


def test_the_marks_of_an_earlier_wait_are_gone_and_its_origin_is_kept() -> None:
    # given an event that came through the ladder
    past: dict[str, Any] = {f"{DELAY_PREFIX}3": True, f"{DELAY_PREFIX}0": False, DELAY_TO: "events", DELAY_DUE: 1}

    # when it fails, once for a short wait and once for a long one
    short, long = headers_of(copied(1, DAY, **past)), headers_of(copied(3600, DAY, **past))

    # then nothing of the first way is left, and the dead letter's origin will be the event's exchange
    assert not [name for name in short if name.startswith(DELAY_PREFIX)]
    assert {name for name in long if name.startswith(DELAY_PREFIX)} == {DELAY_DUE, DELAY_BACK_TO}
    assert short[EXCHANGE] == long[EXCHANGE] == "events"
    assert long[ROUTING_KEY] == "order.created"


def test_there_is_room_for_the_way_however_much_the_headers_say() -> None:
    copy = set_out(copied(3600, DAY, limit=8192, **{f"x-{number}": "x" * 500 for number in range(20)}))

    assert len(copy.properties) <= 8192
    assert headers_of(copy)[ERROR] == "pipeline.retry.Retry"
