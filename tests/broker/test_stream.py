"""Reading a stream on a real broker: exactly what is there, however much comes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from pipeline.amqp import stream as stream_module
from pipeline.amqp.publisher import Publisher
from pipeline.amqp.stream import PREFETCH, ends_of, offset_of, read_from, read_stream
from pipeline.errors import LogTruncated, ObjectMissing
from pipeline.event import utc_now
from pipeline.message import Delivery
from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.proxy import proxy_to
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


async def collected(batches: AsyncIterator[list[Delivery]], most: int = 0) -> list[str]:
    """The ids read, `most` of them when it never ends; each offset once, and in order."""
    found: list[Delivery] = []
    async with asyncio.timeout(60):
        async for batch in batches:
            found += batch
            if most and len(found) >= most:
                break
    offsets = [offset_of(each) for each in found]
    assert offsets == sorted(set(offsets))
    return [each.properties.message_id for each in found]


async def test_reading_begins_and_ends_where_it_is_told(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(LOG, x_queue_type="stream")
        await events.send(messages(ids(3000), LOG))

        assert await collected(read_from(settings, LOG, 5)) == ids(2995, 5)
        assert await collected(read_from(settings, LOG, 200, 210)) == ids(11, 200)
        assert await collected(read_from(settings, LOG, 2999)) == ids(1, 2999)
        assert await collected(read_from(settings, LOG, 3000)) == []
        assert await collected(read_from(settings, LOG, utc_now() - timedelta(hours=1))) == ids(3000)
        assert await ends_of(settings, LOG) == (0, 2999)
        with pytest.raises(LogTruncated, match=r"ends with offset 2,999, and 3,001 was to be read"):
            await collected(read_from(settings, LOG, 3001))


async def test_reading_goes_on_after_its_connection_was_cut_again_and_again(vhost: TestVhost) -> None:
    count = 20_000
    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(LOG, x_queue_type="stream")
        await events.send(messages(ids(count), LOG))
        settings = settings_for(vhost, amqp_url=proxy.url)
        cuts = 0

        async def cut_on_the_way() -> AsyncIterator[list[Delivery]]:
            nonlocal cuts
            async for batch in read_from(settings, LOG, 0, prefetch=1000):
                if offset_of(batch[-1]) > (cuts + 1) * 4000 and cuts < 3:
                    cuts += 1
                    proxy.cut()
                yield batch

        assert await collected(cut_on_the_way()) == ids(count)
        assert cuts == 3


async def test_who_follows_gets_what_comes(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, publisher(settings) as events:
        await seen.queue(LOG, x_queue_type="stream")
        following = asyncio.create_task(collected(read_from(settings, LOG, 0, follow=True), 200))
        await events.send(messages(ids(100), LOG))
        await events.send(messages(ids(100, 100), LOG))

        assert await following == ids(200)
