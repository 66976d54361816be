"""The lane on a real broker: many channels, heartbeats, and peers that fall silent or go while somebody waits."""

from __future__ import annotations

import asyncio
import time

import aiormq
import pytest

from pipeline.amqp import lane as lane_module
from pipeline.amqp.confirms import ConfirmChannel
from pipeline.amqp.consume_channel import ConsumeChannel
from pipeline.amqp.lane import Lane
from pipeline.amqp.queue_length import QueueLengths
from pipeline.amqp.session import Session
from pipeline.errors import BrokerError, BrokerUnavailable, ObjectMissing, PublishInterrupted, TopologyDrift
from tests.support.broker import TestVhost
from tests.support.consuming import QUEUE, consuming, take
from tests.support.proxy import proxy_to
from tests.support.publishing import messages
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import DEADLINE

CHANNELS = 1000
AT_ONCE = 50


async def test_a_thousand_channels_opened_and_closed_leave_nothing_behind(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost), "test")

        async def use_one(number: int) -> None:
            channel = await lane.channel(ConsumeChannel(lane, number, asyncio.Event()))
            await lane.close_channel(channel)

        for start in range(0, CHANNELS, AT_ONCE):
            await asyncio.gather(*[use_one(number) for number in range(start, start + AT_ONCE)])

        # Their numbers are free for channels of the client library's own ...
        await seen.put(QUEUE, b"x")
        plain = [await lane.plain_channel() for _ in range(AT_ONCE)]
        found = await asyncio.gather(*[each.basic_get(QUEUE, no_ack=True) for each in plain])
        assert {each.body for each in found} == {b"x", b""}
        await asyncio.gather(*[lane.close_channel(each) for each in plain])
        # ... and for new ones of ours.
        receipt = (await ConfirmChannel.open(lane)).publish(messages(["a", "b"], QUEUE))
        async with asyncio.timeout(DEADLINE):
            await receipt.done
        assert receipt.errors == {}
        await lane.close()


async def test_a_number_passes_from_a_closing_channel_to_the_next_without_a_gap(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost), "test")

        async def closing() -> None:
            channel = await lane.channel(ConsumeChannel(lane, 1, asyncio.Event()))
            await lane.close_channel(channel)

        async def publishing() -> None:
            # when a channel is opened as soon as another's number is free, nothing of that other one gets in its way
            receipt = (await ConfirmChannel.open(lane)).publish(messages(["a"], QUEUE))
            async with asyncio.timeout(DEADLINE):
                await receipt.done
            assert receipt.errors == {}

        for _ in range(20):
            await asyncio.gather(closing(), closing(), publishing(), closing(), publishing())
        await lane.close()
        await seen.until_count(QUEUE, 40)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> float:
    """The client library gives a silent peer up after so many seconds, with a heartbeat of 1 s; usually it takes 6."""
    monkeypatch.setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 1)
    return 2.0


async def test_a_lane_that_is_busy_with_its_own_traffic_only_stays_open(vhost: TestVhost, short_grace: float) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        async with consuming(settings_for(vhost, heartbeat=1), prefetch=10) as consumer:
            # given a broker that always has data to send, and so never a heartbeat
            until = time.monotonic() + short_grace * 1.8
            while time.monotonic() < until:
                await seen.put(QUEUE, b"x" * 1000)
                consumer.settle(await take(consumer, 1))
            # then nobody took it for dead
            assert consumer.epoch == 1
        await seen.until_count(QUEUE, 0)


async def test_a_peer_without_a_sign_of_life_is_given_up_and_every_wait_ends(
    vhost: TestVhost, short_grace: float
) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost, amqp_url=proxy.url, heartbeat=1), "test")
        confirms, plain = await ConfirmChannel.open(lane), await lane.plain_channel()

        proxy.stall()
        receipt = confirms.publish(messages(["a"], QUEUE))
        asked = asyncio.create_task(lane.ask(plain.queue_declare(QUEUE, passive=True)))
        opened = asyncio.create_task(ConfirmChannel.open(lane))

        async with asyncio.timeout(DEADLINE):
            # The client library cancels those who wait for it; nobody cancelled us.
            results = await asyncio.gather(asked, opened, return_exceptions=True)
            assert [type(each) for each in results] == [BrokerUnavailable, BrokerUnavailable]
            assert isinstance(await lane.lost, BrokerUnavailable)
            await receipt.done
        assert [type(each) for each in receipt.errors.values()] == [PublishInterrupted]
        with pytest.raises(BrokerError):
            await ConfirmChannel.open(lane)
        await lane.close()


async def test_a_question_without_an_answer_ends_at_its_deadline(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost, amqp_url=proxy.url), "test")
        plain = await lane.plain_channel()
        monkeypatch.setattr(lane_module, "ANSWER_DEADLINE", 0.2)
        proxy.stall()

        with pytest.raises(BrokerUnavailable, match="did not answer in time"):
            await lane.ask(plain.queue_declare(QUEUE, passive=True))

        # Who is cancelled himself is not told a tale of a lost connection.
        waiting = asyncio.create_task(lane.ask(lane.plain_channel()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        proxy.cut()
        await lane.close()


async def test_closing_does_not_wait_for_a_peer_that_is_silent(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "CLOSE_DEADLINE", 0.2)
    monkeypatch.setattr(lane_module, "ANSWER_DEADLINE", 0.2)
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost, amqp_url=proxy.url), "test")
        confirms, plain = await ConfirmChannel.open(lane), await lane.plain_channel()
        proxy.stall()
        # given much that was written and that nobody reads
        receipt = confirms.publish(messages([str(number) for number in range(20)], QUEUE))
        lane.write(b"\x08\x00\x00\x00\x00\x00\x00\xce" * 1_000_000)

        started = time.monotonic()
        await lane.drain_quietly()
        await lane.close_channel(plain)
        await lane.close()

        assert time.monotonic() - started < 5
        assert lane.is_lost
        await receipt.done
        assert len(receipt.errors) == 20
        await lane.close()


async def test_who_shares_a_session_shares_its_connection_also_after_a_loss(vhost: TestVhost) -> None:
    async with proxy_to(vhost.amqp_url) as proxy:
        async with Session(settings_for(vhost, amqp_url=proxy.url), "test") as session:
            lane = await session.lane()
            assert {await session.lane() for _ in range(5)} == {lane}

            proxy.cut()
            async with asyncio.timeout(DEADLINE):
                await lane.lost
            reopened = await asyncio.gather(*[session.lane_patiently() for _ in range(20)])

            assert len(set(reopened)) == 1
            assert proxy.accepted == 2
        with pytest.raises(BrokerUnavailable, match="was closed"):
            await session.lane()


async def test_a_session_closed_while_it_connects_keeps_no_connection(vhost: TestVhost) -> None:
    async with proxy_to(vhost.amqp_url) as proxy:
        session = Session(settings_for(vhost, amqp_url=proxy.url), "test")
        proxy.stall()
        connecting = asyncio.create_task(session.lane())
        async with asyncio.timeout(DEADLINE):
            while not proxy.accepted:  # noqa: ASYNC110 - the proxy tells nobody
                await asyncio.sleep(0.01)

        await session.close()
        proxy.resume()

        with pytest.raises(BrokerUnavailable, match="was closed"):
            await connecting


async def test_questions_about_queues_go_on_after_one_that_failed(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen, Session(settings_for(vhost), "test") as session:
        await seen.queue(QUEUE)
        await seen.put(QUEUE, b"1", b"2")
        await seen.until_count(QUEUE, 2)
        lengths = QueueLengths(session)

        with pytest.raises(ObjectMissing, match="no queue 'other'"):
            await lengths.ask([QUEUE, "other"])

        assert await lengths.ask([QUEUE]) == {QUEUE: (2, 0)}


async def test_what_the_broker_refuses_is_named(vhost: TestVhost) -> None:
    async with rabbit(vhost) as seen:
        await seen.queue(QUEUE)
        lane = await Lane.open(settings_for(vhost), "test")
        plain = await lane.plain_channel()

        with pytest.raises(TopologyDrift, match=r"PRECONDITION_FAILED.*pipeline topology plan"):
            await lane.ask(plain.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "classic"}))

        await lane.close()
