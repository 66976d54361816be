"""Networks and brokers that fail while publishing: each publish is confirmed or reported, and none is forgotten."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from pipeline.amqp.publisher import CHUNK, Publisher
from pipeline.broker.node import Node
from pipeline.errors import (
    PublishInterrupted,
    PublishTimeout,
)
from tests.support.alarm import memory_alarm
from tests.support.broker import TestVhost, new_vhost
from tests.support.proxy import Proxy, proxy_to
from tests.support.publishing import BOUND, messages, orders, publisher
from tests.support.rabbit import Rabbit, rabbit, settings_for
from tests.support.topologies import until


def through(proxy: Proxy, vhost: TestVhost) -> AbstractAsyncContextManager[Publisher]:
    """A publisher whose connection the test can disturb."""
    return publisher(settings_for(vhost, amqp_url=proxy.url))


async def ids_in(seen: Rabbit, queue: str) -> set[str]:
    return {each.message_id or "" for each in await seen.take(queue)}


async def test_a_silent_broker_is_a_timeout_at_the_deadline(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy, through(proxy, vhost) as events:
        await seen.queue("work", bind=BOUND)
        # given a connection through which nothing comes any more
        proxy.stall()
        # when one and when many events are published
        started = time.monotonic()
        with pytest.raises(PublishTimeout, match=r"event id-1: no confirm within 0\.5 s.*under the same id"):
            await events.publish("order.created", {}, id="id-1", deadline=0.5)
        errors = await events.send([events.codec.encode(event) for event in orders(CHUNK * 2)], deadline=0.5)
        # then each is reported in time
        assert {type(error) for error in errors.values()} == {PublishTimeout}
        assert len(errors) == CHUNK * 2
        assert time.monotonic() - started < 10
        # and when the network comes back, so does the publisher
        proxy.resume()
        await events.publish("order.created", {}, id="id-2")
        assert await seen.count("work") >= 1


async def test_cut_in_the_middle_of_a_window_nothing_is_forgotten(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy, through(proxy, vhost) as events:
        await seen.queue("work", bind=BOUND)
        # given some events confirmed, and many more sent whose confirms are held up
        await events.publish_many(orders(50))
        proxy.stall(up=False)
        tasks = [asyncio.create_task(events.publish(event)) for event in orders(300)]

        async def arrived() -> bool:
            return await seen.count("work") >= 200

        await until(arrived, "messages the publisher does not know to be there")
        # when the connection breaks
        proxy.cut()
        proxy.resume()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # then every caller is told that it may or may not be there
        assert {type(each) for each in results} == {PublishInterrupted}
        # and the same publisher sends them again, under the same ids
        await asyncio.gather(*[events.publish(event) for event in orders(300)])
        assert await ids_in(seen, "work") == {event.id for event in orders(300)}


async def test_cut_again_and_again_what_is_confirmed_is_there(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy, through(proxy, vhost) as events:
        await seen.queue("work", bind=BOUND)
        confirmed: set[str] = set()
        for round_ in range(5):
            tasks = [
                asyncio.create_task(events.publish(replace(event, id=f"{round_}-{event.id}"))) for event in orders(200)
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            proxy.cut()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            confirmed |= {each for each in results if isinstance(each, str)}
            assert {type(each) for each in results} <= {str, PublishInterrupted}

        assert confirmed
        assert confirmed <= await ids_in(seen, "work")


async def test_a_publish_waits_for_a_broker_that_is_away(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy, through(proxy, vhost) as events:
        await seen.queue("work", bind=BOUND)
        proxy.refusing = True
        proxy.cut()

        async def noticed() -> bool:
            errors = await events.send(messages(["early"], "work"), deadline=0.3)
            return "not sent within 0.3 s" in str(errors[0])

        await until(noticed, "a publisher that knows its connection to be gone")
        waiting = asyncio.create_task(events.publish("order.created", {}, id="patient"))
        await asyncio.sleep(0)
        proxy.refusing = False

        assert await waiting == "patient"
        assert await ids_in(seen, "work") == {"patient"}


async def test_during_a_memory_alarm_publishes_wait_and_then_go(private_node: Node) -> None:
    with new_vhost(private_node.start()) as vhost:
        async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
            await seen.queue("work", bind=BOUND)
            async with memory_alarm(private_node):

                async def blocked() -> bool:
                    errors = await events.send(messages(["early"], "work"), deadline=0.3)
                    return bool(errors) and "not sent within 0.3 s" in str(errors[0])

                # when the alarm has come through, a publish with a deadline ends with a word about alarms
                await until(blocked, "a publisher that the broker has told of its alarm")
                with pytest.raises(PublishTimeout, match="memory or disk alarm"):
                    await events.publish("order.created", {}, deadline=0.1)
                waiting = asyncio.create_task(events.publish("order.created", {}, id="patient"))
                assert not (await asyncio.wait([waiting], timeout=0.2))[0]
            # and one that has time goes through when the alarm is over
            assert await waiting == "patient"
            assert "patient" in await ids_in(seen, "work")
