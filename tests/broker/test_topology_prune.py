"""What `apply --prune` removes, and what it never does."""

from __future__ import annotations

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import declare, own_channel
from pipeline.amqp.live import live_objects
from pipeline.settings import Settings
from pipeline.topology.model import Binding, Queue
from tests.support.broker import TestVhost
from tests.support.topologies import applied, planned, settings_of, short, topology_of

HEAD = "exchanges: {events: {}}\nevents: {e: {}}\n"
BEFORE = topology_of(HEAD + "subscriptions: {s: {events: [e], retry: {delays: [1s, 1h]}}}\n")
AFTER = topology_of(HEAD + "subscriptions: {s: {events: [e], retry: {delays: [1s]}}}\n")


@pytest.fixture
def settings(vhost: TestVhost) -> Settings:
    return settings_of(vhost)


async def test_an_empty_retry_queue_that_left_the_files_is_pruned_only_when_asked(settings: Settings) -> None:
    # given a delay that was taken out of the file
    await applied(settings, BEFORE)
    assert short(await planned(settings, AFTER)) == [("unmanaged", "queue", "s.retry.1h")]

    # when it is applied, then its queue stays
    assert (await applied(settings, AFTER)).pruned == ()
    assert "s.retry.1h" in (await live_objects(settings)).queues

    # when it is applied with --prune, then it goes
    done = await applied(settings, AFTER, prune=True)
    assert [step.name for step in done.pruned] == ["s.retry.1h"]
    assert done.exit_code == 0
    assert "s.retry.1h" not in (await live_objects(settings)).queues


async def test_a_queue_that_holds_a_message_is_never_pruned(settings: Settings) -> None:
    # given an event that waits in the queue of a delay that was taken out
    await applied(settings, BEFORE)
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"waiting"), "s.retry.1h")

        # when it is pruned at once, before any statistics know of the message
        done = await applied(settings, AFTER, prune=True)

        # then the queue is kept, the reason told, and the message still there
        assert [(step.name, reason) for step, reason in done.kept] == [("s.retry.1h", "it holds 1 message")]
        assert done.exit_code == 2
        queue = await channel.get_queue("s.retry.1h")
        assert (await queue.get()).body == b"waiting"


async def nothing(message: AbstractIncomingMessage) -> None:
    """A consumer that takes and does nothing."""


async def test_a_queue_that_somebody_consumes_is_never_pruned(settings: Settings) -> None:
    await applied(settings, BEFORE)
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("s.retry.1h")
        await queue.consume(nothing)

        done = await applied(settings, AFTER, prune=True)

        assert [(step.name, reason) for step, reason in done.kept] == [("s.retry.1h", "it has 1 consumer")]
    assert "s.retry.1h" in (await live_objects(settings)).queues


async def test_a_dead_letter_queue_that_left_the_files_goes_with_its_policy(settings: Settings) -> None:
    # given a subscription whose work queue was deleted by hand because it no longer dead-letters
    await applied(settings, AFTER)
    without = topology_of(HEAD + "subscriptions: {s: {events: [e], retry: {delays: [1s]}, dead_letter: false}}\n")
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await channel.queue_delete("s")

    done = await applied(settings, without, prune=True)

    assert sorted((step.object, step.name) for step in done.pruned) == [
        ("policy", "pipeline.s.dlq"),
        ("queue", "s.dlq"),
    ]
    assert (await planned(settings, without)).steps == ()


async def test_a_binding_too_many_is_removed_only_when_asked(settings: Settings) -> None:
    # given somebody who bound our queue to more
    await applied(settings, AFTER)
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Binding("events", "s", "order.#"))
    assert (await planned(settings, AFTER)).exit_code == 2

    left = await applied(settings, AFTER)
    assert (left.exit_code, [step.name for step in left.left]) == (2, ["events → s (order.#)"])

    pruned = await applied(settings, AFTER, prune=True)
    assert (pruned.exit_code, [step.name for step in pruned.pruned]) == (0, ["events → s (order.#)"])
    assert (await planned(settings, AFTER)).steps == ()


async def test_what_belongs_to_others_is_never_pruned(settings: Settings) -> None:
    # given queues, an exchange's binding and a policy of another team on the same virtual host
    await applied(settings, AFTER)
    other = topology_of(HEAD + "subscriptions: {theirs: {events: [e]}}\nqueues: {plain: {}}\n")
    await applied(settings, other)
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Queue("by-hand", arguments={"x-queue-type": "classic"}))
        await declare(channel, Binding("events", "by-hand", "#"))
    before = await live_objects(settings)

    done = await applied(settings, AFTER, prune=True)

    assert (done.pruned, done.kept, done.exit_code) == ((), (), 0)
    assert await live_objects(settings) == before
