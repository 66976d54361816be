"""The delay ladder: any delay is a sum of waits, and every message finds out at the right end."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.codec import Codec
from pipeline.codec.delay import LADDER, due_time, set_out, way_back
from pipeline.errors import TopologyError
from pipeline.event import Event
from pipeline.message import Message
from pipeline.properties import Properties, decode_properties, encode_properties
from pipeline.topology.delay import LEVELS, LONGEST, levels_of, path_of, queue_of, wait_of
from pipeline.topology.expand import concerning, expand
from pipeline.topology.keys import MAX_TTL_MS
from pipeline.topology.load import load_text
from pipeline.topology.model import Delay
from tests.support.ladder import fits, journey, waits

FILE = """\
version: 1
exchanges: {events: {}, audit: {type: fanout}}
events: {order.due: {exchange: events}, order.seen: {exchange: audit}}
subscriptions:
  payments: {events: [order.due]}
  audits: {routing_keys: [x], exchange: audit}
delay: {max: 366d}
"""
TOPOLOGY = load_text(FILE).topology
OBJECTS = expand(TOPOLOGY)
WAITS = [queue for queue in OBJECTS.queues.values() if "x-message-ttl" in queue.arguments and queue.role == "delay"]
CODEC = Codec(TOPOLOGY, 1024)


@given(st.floats(0.001, LONGEST))
def test_any_delay_is_a_way_through_queues_that_wait_just_as_long_in_whole_seconds(seconds: float) -> None:
    # given an event that is published for later
    due = due_time(seconds, None)
    message = CODEC.encode(Event("order.due", {"n": 1}), due)

    # when it sets out
    assert due is not None
    before = time.time()
    queues, end = journey(OBJECTS, message)
    after = time.time()

    # then its waits sum up to what is left, rounded up, and it comes out at the event's own exchange
    assert due.timestamp() - after <= waits(OBJECTS, queues) < due.timestamp() - before + 1
    assert end == ("exchange", "events")
    assert set_out(message).routing_key == "order.due"


@given(st.integers(0, LONGEST))
def test_a_path_goes_down_and_sums_up_to_just_the_delay(seconds: int) -> None:
    path = path_of(seconds)

    assert sum(map(wait_of, path)) == seconds
    assert list(path) == sorted(set(path), reverse=True)
    assert all(0 <= level < LEVELS for level in path)


@given(st.integers(1, LONGEST))
def test_a_ladder_has_the_levels_that_its_longest_delay_needs(longest: int) -> None:
    levels = levels_of(Delay(longest))

    assert all(path_of(seconds)[0] < levels for seconds in (longest, longest // 2 + 1))
    assert sum(map(wait_of, range(levels - 1))) < longest


def test_every_wait_is_one_that_rabbitmq_can_keep() -> None:
    ttls = [queue.arguments["x-message-ttl"] for queue in WAITS]

    assert len(ttls) == LEVELS
    assert max(ttls) <= MAX_TTL_MS
    assert len({queue_of(level) for level in range(LEVELS)}) == LEVELS


def test_a_retry_comes_back_to_its_work_queue_and_nowhere_else() -> None:
    properties = encode_properties(Properties("e1", headers={**way_back("payments", 77.5), "x-tenant": "north"}))

    queues, end = journey(OBJECTS, Message(LADDER, "order.due", b"", properties, "e1"))

    assert 70 <= waits(OBJECTS, queues) <= 78  # it may take a moment to get here
    assert end == ("queue", "payments")


def test_what_is_due_already_goes_straight_where_it_belongs() -> None:
    event = set_out(CODEC.encode(Event("order.seen", {}), due_time(0, None)))
    properties = encode_properties(Properties("e1", headers={**way_back("payments", 0), "x-tenant": "north"}))
    retry = set_out(Message(LADDER, "order.due", b"", properties, "e1"))

    assert (event.exchange, event.routing_key) == ("audit", "order.seen")
    assert (retry.exchange, retry.routing_key) == ("", "payments")
    assert decode_properties(retry.properties).headers == {"x-tenant": "north"}


def test_no_wait_is_lost_between_queues_and_none_is_dropped() -> None:
    for queue in WAITS:
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert queue.arguments["x-queue-type"] == "quorum"
        assert "x-dead-letter-routing-key" not in queue.arguments  # each keeps its own


def test_what_nobody_takes_when_it_is_due_is_kept_and_only_that() -> None:
    # given the policy that gives the events' exchanges an alternate
    due = OBJECTS.policies["pipeline._delay.due"]
    assert due.definition == {"alternate-exchange": "pipeline.delay.undeliverable"}
    assert due.apply_to == "exchanges"
    assert [name for name in OBJECTS.exchanges if re.search(due.pattern, name)] == ["events", "audit"]

    # then what came through the ladder fits that exchange's one binding, and nothing else does
    (binding,) = [each for each in OBJECTS.bindings if each.source == "pipeline.delay.undeliverable"]
    delayed = set_out(CODEC.encode(Event("order.due", {}), due_time(5, None)))
    assert fits(binding, decode_properties(delayed.properties).headers)
    assert not fits(binding, decode_properties(CODEC.encode(Event("order.due", {})).properties).headers)


@pytest.mark.parametrize("name", ["a.b", "a+b", "(x)", "a|b", "ü$", "a b", "[x]", "^", "a\\b", "a-b_c"])
def test_an_exchange_of_any_name_is_caught_by_its_policy_and_no_other(name: str) -> None:
    text = f"version: 1\nexchanges: {{{json.dumps(name)}: {{}}}}\nevents: {{a: {{}}}}\ndelay: {{}}\n"

    pattern = expand(load_text(text).topology).policies["pipeline._delay.due"].pattern

    assert re.search(pattern, name)
    assert not any(re.search(pattern, other) for other in (f"{name}x", f"x{name}", name.replace(".", "x") + "y", "axb"))


def test_one_policy_keeps_others_away_from_the_ladder_and_from_nothing_else() -> None:
    caught = {
        queue: [name for name, policy in OBJECTS.policies.items() if re.search(policy.pattern, queue)]
        for queue in OBJECTS.queues
    }

    assert all(caught[queue_of(level)] == ["pipeline._delay"] for level in range(LEVELS))
    assert "pipeline._delay" not in caught["payments"]


def test_a_worker_stands_on_the_ladders_exchanges() -> None:
    part = concerning(OBJECTS, ["payments"])

    assert {"pipeline.delay.0", "pipeline.delay.28", "pipeline.delay.due", "events"} <= set(part.exchanges)


def test_a_shorter_ladder_keeps_the_ways_of_a_longer_one() -> None:
    # given a longest delay that was made shorter, and a message on its way through the long one
    shorter = expand(load_text(FILE.replace("366d", "10s")).topology)
    message = CODEC.encode(Event("order.due", {}), due_time(timedelta(days=300), None))

    # then the exchanges behind each long wait are the same
    queues, _ = journey(OBJECTS, message)
    behind = {OBJECTS.queues[queue].arguments["x-dead-letter-exchange"] for queue in queues}
    assert behind <= set(shorter.exchanges)
    ways = {repr(each) for each in shorter.bindings if each.destination_type == "exchange"}
    assert {repr(each) for each in OBJECTS.bindings if each.destination_type == "exchange"} == ways


def test_without_a_longest_delay_it_is_thirty_days() -> None:
    assert load_text("version: 1\ndelay:\n").topology.delay == Delay(30 * 86_400)
    assert load_text("version: 1\n").topology.delay is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delay: {max: 400d}", "t.yaml:2:14: delay.max: is 400d; it must be 1s to 366d"),
        ("delay: {longest: 3d}", "t.yaml:2:9: delay.longest: unknown key"),
        ("delay: 3d", "t.yaml:2:8: delay: must be a mapping, found text '3d'"),
        (
            "delay: {}\nexchanges: {pipeline.delay.3: {}}",
            "t.yaml:3:13: exchanges.pipeline.delay.3: the delay ladder has an exchange of this name (rename it)",
        ),
        (
            "delay: {}\nqueues: {pipeline.delay.4s: {}}",
            "t.yaml:3:10: queues.pipeline.delay.4s: the delay ladder has a queue of this name (rename it)",
        ),
    ],
)
def test_what_can_not_be_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(TopologyError) as caught:
        load_text(f"version: 1\n{text}\n", "t.yaml")

    assert said in str(caught.value)
