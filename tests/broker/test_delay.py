"""The delay ladder on a real broker: late by little, never early, and nothing of it stands in another's way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.verify import verify
from pipeline.delayed import Resent, cancel, look, resend
from pipeline.errors import ObjectMissing, TopologyDrift, Unroutable
from pipeline.event import Event, utc_now
from pipeline.message import Delivery
from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.consuming import consuming, take
from tests.support.rabbit import rabbit
from tests.support.topologies import applied, planned, settings_of, short, topology_of

FILE = """\
exchanges: {events: {}}
events: {order.due: {}, order.seen: {}}
subscriptions:
  work: {events: [order.due]}
  audit: {routing_keys: ["order.*"], exchange: events}
delay: {max: 10m}
"""
TOPOLOGY = topology_of(FILE)


@pytest.fixture
def settings(vhost: TestVhost) -> Settings:
    """Settings of the test's virtual host."""
    return settings_of(vhost)


@pytest_asyncio.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher; the topology is applied."""
    assert (await applied(settings, TOPOLOGY)).exit_code == 0
    async with Publisher(TOPOLOGY, settings) as publisher:
        yield publisher


def ids(deliveries: list[Delivery]) -> list[str]:
    """Their event ids."""
    return [each.properties.message_id for each in deliveries]


async def test_the_applied_ladder_is_just_what_the_files_say(publisher: Publisher, settings: Settings) -> None:
    assert short(await planned(settings, TOPOLOGY)) == []


async def test_an_event_is_routed_by_its_own_key_when_it_is_due(publisher: Publisher, settings: Settings) -> None:
    # When an event is published for later
    began = time.time()
    await publisher.publish("order.due", {"n": 1}, id="e1", after=timedelta(seconds=2))
    await publisher.publish("order.seen", {"n": 2}, id="e2", after=1)

    # Then everybody who takes its key gets it, not before
    async with consuming(settings) as work, consuming(settings, queue="audit") as audit:
        (due,) = await take(work, 1)
        assert time.time() >= began + 2
        assert due.properties.message_id == "e1"
        assert due.routing_key == "order.due"
        assert publisher.codec.decode(due).data == {"n": 1}
        assert publisher.codec.decode(due).extensions == {}
        assert sorted(ids(await take(audit, 2))) == ["e1", "e2"]


async def test_a_short_wait_does_not_stand_behind_a_long_one(publisher: Publisher, settings: Settings) -> None:
    # Given long waits that came first, on every level
    for seconds in range(100, 120):
        await publisher.publish("order.due", {}, id=f"long-{seconds}", after=seconds)

    # When a short one follows
    await publisher.publish("order.due", {}, id="short", after=1)

    # Then it comes first
    async with consuming(settings) as work:
        assert ids(await take(work, 1)) == ["short"]
    assert len(await look(settings, TOPOLOGY)) == 20


async def test_what_has_passed_is_published_at_once(publisher: Publisher, settings: Settings) -> None:
    await publisher.publish("order.due", {}, id="past", at=utc_now() - timedelta(days=1))
    await publisher.publish_many([Event("order.due", {}, "now-1"), Event("order.due", {}, "now-2")], after=0)

    async with consuming(settings) as work:
        arrived = await take(work, 3)
    assert sorted(ids(arrived)) == ["now-1", "now-2", "past"]
    assert [name for name in arrived[0].properties.headers if name.startswith("pipeline-")] == []


async def test_a_look_shows_what_waits_and_changes_nothing(publisher: Publisher, settings: Settings) -> None:
    # Given events that wait
    soon = utc_now() + timedelta(seconds=200)
    await publisher.publish("order.seen", {}, id="later", after=300)
    await publisher.publish("order.due", {"n": 1}, id="soon", at=soon)
    await publisher.publish("order.due", {}, id="last", after=500)

    # When they are looked at, twice, and by two at once
    first, second, third = [
        await look(settings, TOPOLOGY),
        *(await asyncio.gather(look(settings, TOPOLOGY), look(settings, TOPOLOGY))),
    ]

    # Then everybody sees all, the soonest first
    assert [each.id for each in first] == ["soon", "later", "last"]
    assert first == second == third
    assert (first[0].type, first[0].due, first[0].to, first[0].is_retry) == ("order.due", soon, "events", False)
    assert [each.id for each in await look(settings, TOPOLOGY, ["order.seen"])] == ["later"]


async def test_looks_at_events_that_fall_due_lose_none_and_make_none_early(
    publisher: Publisher, settings: Settings
) -> None:
    # Given events that fall due all the time
    began = utc_now()
    due = {f"e{number}": began + timedelta(seconds=1 + number / 50) for number in range(150)}
    for event_id, moment in due.items():
        await publisher.publish("order.due", {}, id=event_id, at=moment)

    # When somebody looks again and again
    looks = 0
    arrived: list[Delivery] = []
    early: list[str] = []

    async def collect(work: Consumer) -> None:
        while len(arrived) < len(due):
            batch = await work.arrived()
            now = utc_now()
            early.extend(each for each in ids(batch) if now < due[each])
            arrived.extend(batch)
            work.settle(batch)

    async with consuming(settings) as work:
        collecting = asyncio.create_task(collect(work))
        while not collecting.done():
            await look(settings, TOPOLOGY)
            looks += 1
        await collecting

    # Then each came, once, and not before its time
    assert looks
    assert early == []
    assert Counter(ids(arrived)) == Counter(dict.fromkeys(due, 1))


async def test_a_cancelled_event_does_not_come_and_its_neighbours_do(
    publisher: Publisher, settings: Settings, vhost: TestVhost
) -> None:
    # Given three events that wait, two of them not for long
    await publisher.publish("order.due", {}, id="b", after=100)
    for event_id in ("a", "c"):
        await publisher.publish("order.due", {}, id=event_id, after=2)

    # When one is cancelled
    done = await cancel(settings, TOPOLOGY, "b")

    # Then it is taken out, the others come, and cancelling what is not there any more says so
    assert [each.id for each in done.cancelled] == ["b"]
    assert "b" not in [each.id for each in await look(settings, TOPOLOGY)]
    async with consuming(settings) as work:
        assert sorted(ids(await take(work, 2))) == ["a", "c"]
    for gone in ("a", "b", "never"):
        assert (await cancel(settings, TOPOLOGY, gone)).cancelled == ()
    async with rabbit(vhost) as seen:
        assert sorted(str(each.message_id) for each in await seen.take("work")) == ["a", "c"]


async def test_an_event_that_waits_twice_is_cancelled_as_one(publisher: Publisher, settings: Settings) -> None:
    await publisher.publish("order.due", {}, id="twice", after=100)
    await publisher.publish("order.due", {}, id="twice", after=200)

    done = await cancel(settings, TOPOLOGY, "twice")

    assert [each.id for each in done.cancelled] == ["twice", "twice"]
    assert await look(settings, TOPOLOGY) == []


async def test_an_event_without_a_taker_when_it_is_due_is_kept_and_holds_up_nobody(
    publisher: Publisher, settings: Settings, vhost: TestVhost
) -> None:
    # Given more events than RabbitMQ hands on at once, whose takers go while they wait
    async with rabbit(vhost) as seen:
        audit = await seen.channel.get_queue("audit")
        await audit.unbind("events", "order.*")
        await publisher.publish_many([Event("order.seen", {}, f"kept-{number:02d}") for number in range(40)], after=1)
        await publisher.publish("order.due", {}, id="other", after=2)

        # When they are due, then the others come, and they are kept and shown
        async with consuming(settings) as work:
            assert ids(await take(work, 1)) == ["other"]
        await seen.until_count("pipeline.delay.undeliverable", 40)
        waiting = await look(settings, TOPOLOGY)
        assert [(each.id, each.undeliverable) for each in waiting] == [(f"kept-{n:02d}", True) for n in range(40)]

        # One can be called off, and as long as nobody takes them they stay
        assert len((await cancel(settings, TOPOLOGY, "kept-07")).cancelled) == 1
        left = await resend(settings, TOPOLOGY)
        assert (left.sent, left.left) == (0, 39)
        assert "no queue" in left.why

        # When there is a taker again, they go
        await audit.bind("events", "order.*")
        assert await resend(settings, TOPOLOGY) == Resent(39, 0)
        taken = [each for each in await seen.take("audit") if each.message_id != "other"]
        assert sorted(str(each.message_id) for each in taken) == [f"kept-{n:02d}" for n in range(40) if n != 7]
        assert {each.routing_key for each in taken} == {"order.seen"}
        assert await look(settings, TOPOLOGY) == []


async def test_what_is_published_at_once_and_taken_by_nobody_is_still_an_error(
    publisher: Publisher, vhost: TestVhost
) -> None:
    async with rabbit(vhost) as seen:
        await (await seen.channel.get_queue("audit")).unbind("events", "order.*")

        with pytest.raises(Unroutable):
            await publisher.publish("order.seen", {})

        assert await seen.count("pipeline.delay.undeliverable") == 0


async def test_a_ladder_that_is_not_applied_is_said_to_be_missing(settings: Settings) -> None:
    with pytest.raises(
        ObjectMissing, match=r"queue pipeline\.delay\.undeliverable is not on the broker; `pipeline topology apply`"
    ):
        await look(settings, TOPOLOGY)


async def test_files_with_and_without_the_ladder_get_on_with_the_same_broker(
    publisher: Publisher, settings: Settings
) -> None:
    # Given an event that waits in a ladder that the files no longer have
    await publisher.publish("order.due", {}, id="e1", after=2)
    without = topology_of(FILE.replace("delay: {max: 10m}", ""))
    shorter = topology_of(FILE.replace("delay: {max: 10m}", "delay: {max: 1s}"))

    # Then workers of both kinds may start, there is nothing to do, and the event comes
    for topology in (without, shorter):
        await verify(settings, topology, ["work"])
        assert (await planned(settings, topology)).exit_code == 0
    async with consuming(settings) as work:
        assert ids(await take(work, 1)) == ["e1"]

    # and what is empty can be removed
    pruned = await applied(settings, without, prune=True)
    assert {step.name for step in pruned.pruned} >= {"pipeline.delay.1s", "pipeline.delay.512s"}

    # but with the ladder in the files a worker wants all of it
    with pytest.raises(TopologyDrift, match=r"queue pipeline\.delay\.1s is missing"):
        await verify(settings, TOPOLOGY, ["work"])
