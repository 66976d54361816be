"""A publisher leaves a channel that is nacked, and a connection that is silent: a new one may do better."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.amqp import confirms
from pipeline.amqp import publisher as publishing
from pipeline.errors import Nacked, PublishTimeout
from tests.support.broker import TestVhost, manage
from tests.support.proxy import proxy_to
from tests.support.publishing import BOUND, publisher
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import until

FULL: dict[str, Any] = {"x_queue_type": "classic", "x_max_length": 1, "x_overflow": "reject-publish"}


async def test_a_channel_that_is_nacked_is_left_for_another_one(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirms, "REFUSING", 0.0)

    async def numbers() -> list[int]:
        """Of the channels in confirm mode: the publisher's, and the test's own, which is its connection's first."""
        found = manage(vhost.management_url, "GET", f"/api/vhosts/{vhost.name}/channels")
        assert isinstance(found, list)
        return sorted(each["number"] for each in found if each.get("confirm"))

    async with rabbit(vhost) as seen, publisher(settings_for(vhost)) as events:
        # given a queue that is full
        await seen.queue("small", bind=[("events", "order.full")], **FULL)
        await events.publish("order.full", {})

        # when the broker refuses an event, then the next one goes over another channel, and the first is closed
        for _ in range(2):
            with pytest.raises(Nacked):
                await events.publish("order.full", {})

        async def left() -> bool:
            return await numbers() == [1, 2]

        await until(left, "the publisher has its second channel, and no other", 60)

        # and when there is room again, events go out, on a channel that is kept then
        await seen.take("small")
        await events.publish("order.full", {})
        await seen.take("small")
        await events.publish("order.full", {})
        assert await seen.count("small") == 1


async def test_a_connection_that_confirms_nothing_is_left_for_another_one(
    vhost: TestVhost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publishing, "SILENT", 0.2)
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
        await seen.queue("work", bind=BOUND)
        async with publisher(settings_for(vhost, amqp_url=proxy.url)) as events:
            # given a connection that takes events and confirms none
            proxy.stall(up=False)

            # when one waited in vain, then the connection is given up
            with pytest.raises(PublishTimeout):
                await events.publish("order.created", {}, id="a", deadline=0.5)
            assert "nothing is confirmed any more, connecting anew" in "".join(capfd.readouterr())

            # and the next event goes over another one
            proxy.resume()
            await events.publish("order.created", {}, id="b")
            assert {each.message_id for each in await seen.take("work")} == {"a", "b"}
