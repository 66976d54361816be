"""Reading a stream on a real broker: exactly what is there, however much comes meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.amqp import stream as stream_module
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.stream import PREFETCH, offset_of, read_stream
from pipeline.errors import ObjectMissing
from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.publishing import messages, publisher
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import DEADLINE

LOG = "log"


async def read(settings: Settings) -> list[str]:
    """The ids in the stream; their offsets are looked at on the way."""
    found = []
    async with asyncio.timeout(DEADLINE):
        async for batch in read_stream(settings, LOG):
            assert batch
            found += batch
    assert [offset_of(each) for each in found] == list(range(len(found)))
    return [each.properties.message_id for each in found]


def ids(count: int, start: int = 0) -> list[str]:
    return [f"id-{number}" for number in range(start, start + count)]


async def test_all_that_is_there_is_read_in_order_and_stays(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    count = PREFETCH + 1000  # more than is sent without an ack
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(LOG, x_queue_type="stream")
        assert await events.send(messages(ids(count), LOG)) == {}

        assert await read(settings) == ids(count)
        assert await read(settings) == ids(count)


async def test_what_comes_while_it_is_read_does_not_keep_it_from_ending(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(LOG, x_queue_type="stream")
        await events.send(messages(ids(100), LOG))
        goes_on = asyncio.Event()

        async def publish_on(events: Publisher) -> None:
            count = 100
            while not goes_on.is_set():
                await events.send(messages(ids(10, count), LOG))
                count += 10

        publishing = asyncio.create_task(publish_on(events))
        found = await read(settings)
        goes_on.set()
        await publishing

        # What was confirmed before is read; of what came meanwhile the beginning, if anything.
        assert len(found) >= 100
        assert found == ids(len(found))


async def test_an_empty_stream_has_nothing(vhost: TestVhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SILENCE", 0.3)
    async with rabbit(vhost) as seen:
        await seen.queue(LOG, x_queue_type="stream")

        assert await read(settings_for(vhost)) == []


async def test_a_stream_that_is_not_there_is_named(vhost: TestVhost) -> None:
    with pytest.raises(ObjectMissing, match="no queue 'log'"):
        await read(settings_for(vhost))


async def test_who_has_read_enough_may_leave(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(LOG, x_queue_type="stream")
        await events.send(messages(ids(2000), LOG))

        reading = read_stream(settings, LOG)
        first = await anext(aiter(reading))
        await reading.aclose()  # type: ignore[attr-defined]

        assert offset_of(first[0]) == 0
