"""Connections that can't be had, go over TLS, or turn out not to be AMQP: each has its name and hides the password."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
import uvloop

from pipeline.amqp.confirms import ConfirmChannel
from pipeline.amqp.lane import Lane
from pipeline.amqp.publisher import Publisher
from pipeline.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    ProtocolViolation,
    PublishInterrupted,
    VirtualHostMissing,
)
from pipeline.settings import Settings
from tests.support.broker import TestVhost
from tests.support.proxy import proxy_to
from tests.support.publishing import BOUND, TOPOLOGY, messages, orders, publisher
from tests.support.rabbit import rabbit, settings_for
from tests.support.tls import server_context


def with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def refused(settings: Settings, error: type[BrokerError]) -> str:
    """The message of the one error that connecting gives; no password is in it."""
    with pytest.raises(error) as caught:
        async with Publisher(TOPOLOGY, settings):
            pass
    assert type(caught.value) is error
    parts = urlsplit(settings.amqp_url)
    told = str(caught.value).replace(f"{parts.username}:***@", "")  # user and password may be the same word
    assert parts.password is not None
    assert parts.password not in told
    assert told != str(caught.value)
    return told


async def test_a_wrong_password_is_named_and_not_shown(vhost: TestVhost) -> None:
    url = with_login(vhost.amqp_url, "pipeline", "hunter2")

    assert "check PIPELINE_AMQP_URL" in await refused(settings_for(vhost, amqp_url=url), AuthenticationFailed)


async def test_a_missing_virtual_host_is_named(vhost: TestVhost) -> None:
    url = urlunsplit(urlsplit(vhost.amqp_url)._replace(path="/no%2Fsuch"))

    assert "'no/such'" in await refused(settings_for(vhost, amqp_url=url), VirtualHostMissing)


async def test_nobody_there_is_named(vhost: TestVhost) -> None:
    nobody = f"amqp://me:hunter2@127.0.0.1:{free_port()}/"
    nowhere = "amqp://me:hunter2@no-such-host.invalid/"

    for url in (nobody, nowhere):
        assert "is the broker running?" in await refused(settings_for(vhost, amqp_url=url), BrokerUnavailable)


async def test_somebody_silent_is_named_in_time(vhost: TestVhost) -> None:
    async with proxy_to(vhost.amqp_url) as proxy:
        proxy.stall()
        settings = settings_for(vhost, amqp_url=proxy.url, connect_timeout=0.3)

        assert "did not answer in time" in await refused(settings, BrokerUnavailable)


async def test_somebody_who_speaks_another_protocol_is_named(vhost: TestVhost) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        url = f"amqp://me:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(ProtocolViolation, match="frame of unknown type 50"):
            async with Publisher(TOPOLOGY, settings_for(vhost, amqp_url=url)):
                pass


async def test_no_broker_configured_says_what_to_set(vhost: TestVhost) -> None:
    with pytest.raises(ConfigurationError, match="PIPELINE_AMQP_URL"):
        async with Publisher(TOPOLOGY, settings_for(vhost, amqp_url="")):
            pass


# --- TLS ---


async def test_tls_with_an_authority_of_ones_own(vhost: TestVhost, tmp_path: Path) -> None:
    context, certificate = server_context(tmp_path)
    async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url, context) as proxy:
        await seen.queue("work", bind=BOUND)
        settings = settings_for(vhost, amqp_url=f"{proxy.url}?cafile={quote(str(certificate), safe='')}")

        async with publisher(settings) as events:
            await events.publish_many(orders(500))
            await events.publish("order.created", {"text": "x" * 1_000_000})
        assert await seen.count("work") == 501

        # An authority that nobody vouches for is refused.
        assert "certificate" in await refused(replace(settings, amqp_url=proxy.url), BrokerUnavailable)


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_broker_that_breaks_the_protocol_ends_every_wait_with_that_name(
    vhost: TestVhost, loops: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def story() -> None:
        async with rabbit(vhost) as seen, proxy_to(vhost.amqp_url) as proxy:
            await seen.queue("work")
            lane = await Lane.open(settings_for(vhost, amqp_url=proxy.url), "test")
            channel = await ConfirmChannel.open(lane)
            proxy.stall()
            receipt = channel.publish(messages(["a", "b"], "work"))

            proxy.inject(b"\x01\x00\x01\x00\x00\x00\x00\x00")

            async with asyncio.timeout(10):
                assert isinstance(await lane.lost, ProtocolViolation)
                await receipt.done
            assert {type(error) for error in receipt.errors.values()} == {PublishInterrupted}
            assert isinstance(channel.closed, ProtocolViolation)
            with pytest.raises(ProtocolViolation):
                lane.write(b"")
            await lane.close()

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(story())
