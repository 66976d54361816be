"""`event_log:` and `start:`: what they become on the broker, and what they may not be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipeline.errors import TopologyError
from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import BrokerObjects, CatchUp, Queue, Topology
from pipeline.topology.partitions import with_past
from pipeline.topology.plan import plan

EVENTS = "events: {order.created: {}, order.paid: {}}\n"
SUBSCRIPTION = "subscriptions: {ledger: {events: [order.created], start: 2h}}\n"
ORDERED = SUBSCRIPTION.replace("2h", "2h, order_by: type, partitions: 4")


def topology(text: str, kind: str = "topic") -> Topology:
    return load_text(f"version: 1\nexchanges: {{events: {{type: {kind}}}}}\n{text}", "t.yaml").topology


def problems(text: str, kind: str = "topic") -> str:
    with pytest.raises(TopologyError) as caught:
        topology(text, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "keys"), [("topic", ["#"]), ("fanout", [""]), ("direct", ["order.created", "order.paid"])]
)
def test_the_log_gets_every_event(kind: str, keys: list[str]) -> None:
    objects = expand(topology(EVENTS + "event_log: {exchange: events}\n", kind))

    log = objects.queues["events.log"]
    assert log.arguments == {"x-queue-type": "stream"}, "all limits are a policy"
    assert [each.routing_key for each in objects.bindings if each.destination == "events.log"] == keys


def test_its_limits_are_a_policy_of_its_stream_alone() -> None:
    text = EVENTS + "event_log: {exchange: events, name: a.b+c, max_age: 36h, max_size: 1GB, segment_size: 50MB}\n"
    policy = expand(topology(text)).policies["pipeline._event_log"]

    assert policy.pattern == r"^a\.b\+c$"
    assert policy.definition == {
        "max-age": "129600s",
        "max-length-bytes": 10**9,
        "stream-max-segment-size-bytes": 50 * 10**6,
    }


def test_a_stream_made_by_hand_can_become_the_log() -> None:
    desired = expand(topology(EVENTS + "event_log: {exchange: events}\n"))
    by_hand = Queue("events.log", arguments={"x-queue-type": "stream", "x-max-length-bytes": 10, "x-max-age": "1D"})

    assert not plan(desired, replace(desired, queues={**desired.queues, "events.log": by_hand})).steps
    classic = replace(by_hand, arguments={"x-queue-type": "classic"})
    found = plan(desired, replace(desired, queues={**desired.queues, "events.log": classic}))
    assert [step.kind for step in found.steps] == ["immutable"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("event_log: {exchange: evnts}\n", "topic", "t.yaml:4:23: event_log.exchange: no exchange evnts is declared"),
        ("event_log: {exchange: events}\n", "headers", "t.yaml:4:23: event_log.exchange: exchange events is of type"),
        ("event_log: {exchange: events}\n", "x-consistent-hash", "which no binding brings everything from"),
        ("event_log: {}\n", "topic", "exchange"),
        (
            "event_log: {exchange: events, max_size: 1MB}\n",
            "topic",
            "t.yaml:4:41: event_log.max_size: max_size of 1000000 bytes is below the segment size of 100000000",
        ),
        (
            "event_log: {exchange: events, name: log}\nqueues: {log: {}}\n",
            "topic",
            "t.yaml:5:10: queues.log: the event log has a stream of this name",
        ),
        (
            "event_log: {exchange: events, name: ledger}\nsubscriptions: {ledger: {events: [order.created]}}\n",
            "topic",
            "t.yaml:4:37: event_log.name: a subscription has a queue named ledger",
        ),
        ("event_log: {exchange: events, name: amq.log}\n", "topic", "names beginning amq. are RabbitMQ's own"),
        (SUBSCRIPTION, "topic", "t.yaml:4:51: subscriptions.ledger.start: no event log is declared"),
        (
            "event_log: {exchange: events}\n" + SUBSCRIPTION.replace("2h", "soon"),
            "topic",
            "t.yaml:5:58: subscriptions.ledger.start: 'soon' is none of: first, a duration",
        ),
        (
            "event_log: {exchange: events}\nqueues: {ledger.p04.3: {}}\n" + ORDERED,
            "topic",
            "queue ledger.p04.3 is where what it missed will lie",
        ),
        (
            "event_log: {exchange: amq.topic}\n" + SUBSCRIPTION,
            "topic",
            "it takes events of events, and the log is of amq.topic",
        ),
        (
            "event_log: {exchange: events}\nqueues: {ledger.catchup: {}}\n" + SUBSCRIPTION,
            "topic",
            "queue ledger.catchup is what marks a catching-up",
        ),
    ],
)
def test_what_can_not_be_is_said_with_its_place(text: str, kind: str, expected: str) -> None:
    assert expected in problems(EVENTS + text, kind)


def started(start: str = "first") -> BrokerObjects:
    return expand(topology(EVENTS + "event_log: {exchange: events}\n" + SUBSCRIPTION.replace("2h", start)))


def catching_up(desired: BrokerObjects, actual: BrokerObjects) -> list[str]:
    return [step.detail for step in plan(desired, actual).steps if isinstance(step.target, CatchUp)]


def test_a_subscription_without_bindings_catches_up() -> None:
    desired = started()

    assert catching_up(desired, BrokerObjects({}, {}, (), {})) == ["catches up from first in events.log"]
    assert catching_up(desired, replace(desired, catch_ups=())) == []


def test_one_that_is_marked_goes_on_though_it_is_bound() -> None:
    desired = started()
    marked = replace(desired, queues={**desired.queues, "ledger.catchup": Queue("ledger.catchup")}, catch_ups=())

    assert catching_up(desired, marked) == ["goes on from first in events.log"]
    assert [step.kind for step in plan(desired, marked).steps] == ["create"], "the mark is nobody's leftover"


def test_an_ordered_one_gets_partitions_for_its_past_until_it_has_caught_up() -> None:
    # Given a broker with nothing, one where it is catching up, and one where it has caught up
    desired = expand(topology(EVENTS + "event_log: {exchange: events}\n" + ORDERED))
    nothing = BrokerObjects({}, {}, (), {})
    past = with_past(desired, ["ledger"])
    marked = replace(past, queues={**past.queues, "ledger.catchup": Queue("ledger.catchup")}, catch_ups=())
    done = replace(past, catch_ups=())

    # Then they are made, are wanted as long as there is a mark, and can be pruned after that
    made = {step.name for step in plan(desired, nothing).of("create")}
    assert {"ledger.p04.0", "ledger.p04.3"} <= made
    assert not [each for each in past.bindings if "p04" in each.destination], "nothing goes there but copies"
    assert [step.object for step in plan(desired, marked).steps] == ["catchup"]
    left = plan(desired, done)
    assert left.exit_code == 0
    assert {(step.name, step.prunable) for step in left.steps} == {(f"ledger.p04.{index}", True) for index in range(4)}

    # And they are like those of today: same arguments, same policy
    assert past.queues["ledger.p04.0"].arguments == past.queues["ledger.p4.0"].arguments
    assert re.fullmatch(past.policies["pipeline.ledger"].pattern, "ledger.p04.0")


def test_an_ordered_one_that_nothing_is_bound_to_has_not_caught_up() -> None:
    # Given all of it but the bindings into its entrance, as an `apply` leaves it that was killed
    desired = expand(topology(EVENTS + "event_log: {exchange: events}\n" + ORDERED))
    bindings = tuple(each for each in desired.bindings if each.destination != "ledger.partitions")

    assert catching_up(desired, replace(desired, bindings=bindings, catch_ups=()))
    assert not catching_up(desired, replace(desired, catch_ups=()))
