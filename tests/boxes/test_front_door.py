"""The real haproxy with the configuration that is deployed, before gateways that misbehave as told."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from pipeline.broker.programs import HAPROXY, programs
from scripts.chaos.client import Answer, Client
from scripts.up.servers import HAPROXY_CONFIGURATION
from tests.boxes.stand_in import StandIn, stand_in
from tests.support.postgres import STATE
from tests.support.topologies import until

CONFIGURATION = HAPROXY_CONFIGURATION.read_text()
BODY = b'{"order_id": 1}'
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Door:
    """haproxy, and the two gateways behind it."""

    process: asyncio.subprocess.Process
    port: int
    statistics: int
    gateways: tuple[StandIn, StandIn]

    async def send(self, method: str = "POST", path: str = "/events/order.created", **headers: str) -> Answer:
        """One request on a connection of its own."""
        named = {"Content-Type": "application/json", **{name.replace("_", "-"): headers[name] for name in headers}}
        return await ask(self.port, method, path, named, BODY if method == "POST" else b"")

    async def up(self, backend: str) -> int:
        """How many gateways of a backend haproxy sends requests to."""
        answer = await ask(self.statistics, "GET", "/stats;csv")
        lines = [line.split(",") for line in answer.body.decode().splitlines()]
        return sum(
            line[0] == backend and line[1].startswith("gateway") and line[17].startswith("UP")
            for line in lines
            if line[1:]
        )

    async def until_up(self, backend: str, number: int, checks: int = 3) -> None:
        """Wait until it sends to so many, having asked each so often from now on."""
        asked = [gateway.checks for gateway in self.gateways]

        async def seen() -> bool:
            looked = all(
                gateway.checks >= before + checks for gateway, before in zip(self.gateways, asked, strict=True)
            )
            return looked and await self.up(backend) == number

        await until(seen, f"{number} gateways in {backend}")


async def ask(port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    client = Client("127.0.0.1", port)
    try:
        return await client.send(method, path, headers or {}, body)
    finally:
        await client.close()


@asynccontextmanager
async def running_door() -> AsyncIterator[Door]:
    """haproxy before two gateways, for the block."""
    found = programs(HAPROXY, STATE, print)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(stand_in()) for _ in range(2)]
        port, statistics = free_ports()
        process = await asyncio.create_subprocess_exec(
            found.path("haproxy"),
            *("-db", "-f", str(HAPROXY_CONFIGURATION)),
            env={
                **found.environment(),
                "HAPROXY_BIND": f"127.0.0.1:{port}",
                "HAPROXY_STATS": str(statistics),
                "GATEWAY_1": f"127.0.0.1:{first.port}",
                "GATEWAY_2": f"127.0.0.1:{second.port}",
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            door = Door(process, port, statistics, (first, second))
            await door.until_up("accepts", 2, checks=1)
            yield door
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """haproxy before two gateways."""
    async with running_door() as running:
        yield running


def free_ports() -> tuple[int, int]:
    """Two, held until both are known."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def test_a_request_a_gateway_took_and_never_answered_goes_to_the_other_under_the_same_key(door: Door) -> None:
    # given a gateway that dies after it has read a request: whether it kept the event is not known
    dying, living = door.gateways
    dying.hangs_up = True
    # when clients send events without an id until the dying one had some of them
    answers = [await door.send() for _ in range(6)]
    # then every client is told 202, and what the dying one had came to the living one as the very same request
    assert [answer.status for answer in answers] == [202] * 6
    assert dying.requests
    arrived = {request.one("idempotency-key"): request.body for request in living.requests}
    assert len(arrived) == 6
    assert all(arrived[request.one("idempotency-key")] == request.body for request in dying.requests)


async def test_only_an_event_without_an_id_gets_a_key(door: Door) -> None:
    # given requests with a CloudEvents id, with a key, and with neither
    ce = {"ce_specversion": "1.0", "ce_id": "e1", "ce_type": "order.created", "ce_source": "/t"}
    await door.send(**ce)
    await door.send(Content_Type="application/cloudevents+json; charset=utf-8")
    await door.send(Idempotency_Key="mine")
    await door.send()
    await door.send()
    await door.send(path="/events")
    await door.send("GET", "/events/e1")
    # when they have passed haproxy
    requests = [request for gateway in door.gateways for request in gateway.requests]
    keys = sorted(key for request in requests for key in request.headers.get("idempotency-key", []))
    # then those without have keys of their own, the client's is untouched, and no other request has one
    assert len(requests) == 7
    assert keys[-1] == "mine"
    assert len(set(keys)) == 4
    assert all(UUID.fullmatch(key) for key in keys[:-1])


@pytest.mark.parametrize("path", ["/other", "/events-of-another-kind"])
async def test_a_request_that_can_not_be_repeated_safely_is_not(door: Door, path: str) -> None:
    # given gateways that die when they have read a request
    for gateway in door.gateways:
        gateway.hangs_up = True
    # when something is posted that is no event
    answer = await door.send(path=path)
    # then it was sent once, and the client is told that the outcome is not known
    assert answer.status == 502
    assert sum(len(gateway.requests) for gateway in door.gateways) == 1


async def test_a_refusal_is_an_answer_and_is_not_tried_elsewhere(door: Door) -> None:
    # given gateways that are full: both share one database, and would be asked for nothing
    for gateway in door.gateways:
        gateway.status = 503
    # when an event is sent
    answer = await door.send()
    # then one of them was asked, once
    assert answer.status == 503
    assert answer.body == b"{}"
    assert sum(len(gateway.requests) for gateway in door.gateways) == 1


async def test_a_gateway_that_is_not_ready_gets_no_events_and_still_answers_questions(door: Door) -> None:
    # given gateways without the producer's database
    for gateway in door.gateways:
        gateway.ready = False
    await door.until_up("accepts", 0)
    # when an event is sent, and a result asked for
    sent, asked = await door.send(), await door.send("GET", "/subscriptions/payments/results/1")
    # then the event is refused with a problem document, by haproxy itself, and the question is answered
    assert sent.status == 503
    assert b'"status":503' in sent.body
    assert asked.status == 202
    # and when one is ready again, events go there
    door.gateways[1].ready = True
    await door.until_up("accepts", 1)
    assert (await door.send()).status == 202
    assert len(door.gateways[1].requests) >= 1


async def test_who_the_client_is_is_said_by_haproxy_alone(door: Door) -> None:
    # when a client claims to be another one
    await door.send(X_Forwarded_For="203.0.113.7", X_Request_ID="mine")
    # then the gateway sees the client's real address, and a request id of haproxy's
    (request,) = [request for gateway in door.gateways for request in gateway.requests]
    assert request.one("x-forwarded-for") == "127.0.0.1"
    assert UUID.fullmatch(request.one("x-request-id"))


async def test_versions_and_statistics_stay_inside(door: Door) -> None:
    # when the front door is asked as a stranger would
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = (await reader.read()).lower()
    writer.close()
    # then the gateway's server line is gone, and statistics are asked for at the gateway, which has none
    assert b"server:" not in answer
    assert b"haproxy" not in answer
    assert door.gateways[0].requests or door.gateways[1].requests
    # and the statistics listen on loopback, whatever address the door has
    assert 'bind "127.0.0.1:${HAPROXY_STATS}"' in CONFIGURATION
    assert b"version" not in (await ask(door.statistics, "GET", "/stats")).body.lower()


async def test_told_to_end_it_waits_for_answers(door: Door) -> None:
    # given a request that is under way
    for gateway in door.gateways:
        gateway.answering.clear()
    sending = asyncio.create_task(door.send())

    async def arrived() -> bool:
        return any(gateway.requests for gateway in door.gateways)

    await until(arrived, "the request at a gateway")
    # when haproxy is told to end in order, as `docker stop` does
    door.process.send_signal(signal.SIGUSR1)

    async def closed() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        except OSError:
            return True
        writer.close()  # nothing is asked: it was a moment too early, and no gateway answers now
        return False

    await until(closed, "no new connections")
    for gateway in door.gateways:
        gateway.answering.set()
    # then the answer comes, and haproxy ends
    assert (await sending).status == 202
    async with asyncio.timeout(30):
        assert await door.process.wait() == 0
