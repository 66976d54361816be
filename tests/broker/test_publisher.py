"""Promise 1: a publish returns only after the broker confirmed a routed, persistent message; else a named error."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.amqp.consumer import Consumer
from pipeline.amqp.publisher import WINDOW, PartlyPublished, Publisher
from pipeline.amqp.session import Session
from pipeline.errors import (
    BrokerUnavailable,
    InvalidPayload,
    Nacked,
    PayloadTooLarge,
    PublishError,
    PublishInterrupted,
    Unroutable,
)
from pipeline.event import Event
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from tests.support.broker import TestVhost, manage
from tests.support.publishing import BOUND, FILE, TOPOLOGY, message, messages, orders, publisher
from tests.support.rabbit import rabbit, settings_for

FULL: dict[str, Any] = {"x_queue_type": "classic", "x_max_length": 1, "x_overflow": "reject-publish"}


async def test_a_published_event_is_routed_persistent_and_there(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)

        event_id = await events.publish("order.created", {"order_id": 7}, subject="order/7", source="shop")

        # No waiting: what was confirmed is in the queue.
        (found,) = await seen.take("work")
    assert json.loads(found.body) == {"order_id": 7}
    assert (found.message_id, found.type, found.content_type) == (event_id, "order.created", "application/json")
    assert found.delivery_mode == 2
    assert found.headers["cloudEvents_source"] == "shop"
    assert found.headers["cloudEvents_subject"] == "order/7"


async def test_many_events_are_there_in_their_order(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)

        assert await events.publish_many(orders(1500)) == 1500
        assert await events.publish_many([]) == 0

        assert [each.message_id for each in await seen.take("work")] == [each.id for each in orders(1500)]


# --- the right caller gets the error ---


async def test_an_event_nobody_takes_is_an_error(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)

        with pytest.raises(Unroutable, match=r"routing key 'order\.lost' on exchange 'events'") as error:
            await events.publish("order.lost", {}, id="id-1")

    assert error.value.event_id == "id-1"


async def test_under_one_id_only_the_one_that_found_no_queue_fails(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)
        kinds = ["order.created", "order.lost", "order.lost", "order.created", "order.lost"] * 20

        # given publishes of one event id, none of them confirmed when the next is sent
        results = await asyncio.gather(*[events.publish(kind, {}, id="same") for kind in kinds], return_exceptions=True)
        # then each caller gets what is true of its own
        assert [type(each) for each in results] == [Unroutable if kind == "order.lost" else str for kind in kinds]
        assert await seen.count("work") == kinds.count("order.created")


async def test_of_many_those_that_failed_are_named(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)
        batch = [*orders(3), *orders(2, "order.lost"), *orders(1)]

        with pytest.raises(PartlyPublished, match="2 of 6") as error:
            await events.publish_many(batch)

        assert {index: type(each) for index, each in error.value.errors.items()} == {3: Unroutable, 4: Unroutable}
        assert error.value.confirmed == await seen.count("work") == 4


async def test_a_full_queue_refuses_and_that_is_an_error(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("full", **FULL)
        await seen.queue("work")

        results = await events.send(messages(["a"], "full") + messages(["b", "c"], "work") + messages(["d"], "full"))
        after = await events.send(messages(["e"], "work"))

        assert {index: type(error) for index, error in results.items()} == {3: Nacked}
        assert results[3].event_id == "d"
        assert "a queue is full" in str(results[3])
        assert after == {}
        assert (await seen.count("full"), await seen.count("work")) == (1, 3)


async def test_an_exchange_that_is_not_there_is_an_error_and_not_the_end(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        with pytest.raises(PublishInterrupted, match="no exchange 'events'"):
            await events.publish("order.created", {})
        # when it is declared, the same publisher goes on
        await seen.queue("work", bind=BOUND)
        await events.publish("order.created", {})

        assert await seen.count("work") == 1


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128, "\ud800"], ids=["256", "128 of two bytes", "half a pair"])
async def test_a_name_that_amqp_can_not_carry_fails_alone(vhost: TestVhost, name: str) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work")

        errors = await events.send([message("a", "work"), message("b", name), message("c", "work")])

        assert {index: type(error) for index, error in errors.items()} == {1: PublishError}
        assert errors[1].event_id == "b"
        assert await seen.count("work") == 2


async def test_attributes_too_large_for_their_frame_fail_alone(vhost: TestVhost) -> None:
    huge = Message("", "work", b"{}", encode_properties(Properties(message_id="b", headers={"h": "x" * 200_000})), "b")
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work")

        errors = await events.send([message("a", "work"), huge, message("c", "work")])

        assert {index: type(error) for index, error in errors.items()} == {1: PublishError}
        assert "frame_max" in str(errors[1])
        assert await seen.count("work") == 2


async def test_bad_data_among_many_and_nothing_is_sent(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)

        with pytest.raises(InvalidPayload):
            await events.publish_many([*orders(3), Event("order.created", object())])
        with pytest.raises(PayloadTooLarge):
            await events.publish("order.created", "x" * (events.settings.max_body + 1))

        assert await seen.count("work") == 0


# --- large and many ---


async def test_a_body_of_64_megabytes_goes_there_and_back(vhost: TestVhost) -> None:
    overview = manage(vhost.management_url, "GET", "/api/overview")
    assert isinstance(overview, dict)
    # RabbitMQ 4 takes 16 MB unless told otherwise.
    size = (64 if int(overview["rabbitmq_version"].split(".")[0]) < 4 else 15) * 1024 * 1024
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, publisher(settings) as events, Session(settings, "test") as session:
        await seen.queue("work", bind=BOUND)
        consumer = Consumer(session, "work", 10)
        await consumer.start()

        await events.publish("order.created", "x" * (size - 2), deadline=60)
        async with asyncio.timeout(60):
            (delivery,) = await consumer.arrived()

        assert len(delivery.body) == size
        assert events.codec.decode(delivery).data == "x" * (size - 2)
        consumer.settle([delivery])
        await consumer.close()


async def test_many_tasks_share_one_connection_and_none_waits_for_another(vhost: TestVhost) -> None:
    count = WINDOW * 2  # more than may be unconfirmed at once
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)

        ids = await asyncio.gather(*[events.publish(event) for event in orders(count)])

        assert ids == [event.id for event in orders(count)]
        await seen.until_count("work", count)


async def test_a_caller_who_gives_up_takes_nobody_along(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        await seen.queue("work", bind=BOUND)
        tasks = [asyncio.create_task(events.publish(event)) for event in orders(20)]
        await asyncio.sleep(0)

        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert [isinstance(each, str) for each in results[1::2]] == [True] * 10
        assert await events.publish("order.created", {}, id="later") == "later"


# --- from a plain script ---


@pytest.fixture
def script(vhost: TestVhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The topology file of a script that finds its broker in the environment."""
    monkeypatch.setenv("PIPELINE_AMQP_URL", vhost.amqp_url)
    (tmp_path / "topology.yaml").write_text(f"version: 1\n{FILE}")
    return tmp_path / "topology.yaml"


async def test_a_script_publishes_with_one_call(vhost: TestVhost, script: Path) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue("work", bind=BOUND)

        event_id = await asyncio.to_thread(pipeline.publish, "order.created", {"order_id": 7}, topology=script)

        (found,) = await seen.take("work")
        assert (found.message_id, json.loads(found.body)) == (event_id, {"order_id": 7})
        with pytest.raises(Unroutable):
            await asyncio.to_thread(pipeline.publish, "order.lost", {}, topology=script)


async def test_within_an_event_loop_the_call_says_what_to_use(script: Path) -> None:
    with pytest.raises(RuntimeError, match="use `Publisher`"):
        pipeline.publish("order.created", {}, topology=script)


async def test_a_closed_publisher_says_so(vhost: TestVhost) -> None:
    events = Publisher(TOPOLOGY, settings_for(vhost))
    async with events:
        pass
    await events.close()

    with pytest.raises(PublishInterrupted, match="was closed"):
        await events.publish("order.created", {}, deadline=20)
    with pytest.raises(BrokerUnavailable, match="was closed"):
        await events.__aenter__()
