"""Dead letters made by hand, for tests. In: a virtual host. Out: declared queues, letters in them, and what lies there.

It reads queues through aio-pika, so that it does not see with the eyes of what it tests.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
from aio_pika.abc import AbstractChannel

from pipeline import message
from pipeline.amqp.confirms import ConfirmChannel
from pipeline.amqp.lane import Lane
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from pipeline.settings import Settings, load_settings
from pipeline.topology.expand import subscription_policies, subscription_queues
from pipeline.topology.load import load_text
from pipeline.topology.model import Policy, Subscription
from tests.support.broker import TestVhost, manage

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    retry: {attempts: 3, delays: [1s]}
  inventory:
    events: [order.created]
    retry: {attempts: 3, delays: [1s]}
  audit:
    events: [order.created]
    dead_letter: false
"""
SUBSCRIPTIONS = load_text(TOPOLOGY).topology.subscriptions
PAYMENTS = SUBSCRIPTIONS["payments"]
PUBLISHED_AT_ONCE = 250
COMMAND = "from pipeline.cli.common import guarded; from pipeline.cli.dlq import app; guarded(app)"


class Bench:
    """One test's broker with the queues of `payments`."""

    def __init__(self, vhost: TestVhost, folder: Path, channel: AbstractChannel) -> None:
        self.vhost = vhost
        self.channel = channel
        self.folder = folder
        self.environ = {
            "PIPELINE_AMQP_URL": vhost.amqp_url,
            "PIPELINE_MANAGEMENT_URL": vhost.management_url,
            "PIPELINE_STATE_DIR": str(folder),
            "PIPELINE_TOPOLOGY": str(folder / "topology.yaml"),
        }
        (folder / "topology.yaml").write_text(TOPOLOGY)
        self.settings: Settings = load_settings(self.environ)

    async def declare(self, subscription: Subscription = PAYMENTS, **work_arguments: Any) -> None:
        """Declare its queues and policies; `work_arguments` (`_` for `-`) go to the work queue as well."""
        for policy in subscription_policies(subscription):
            self.set_policy(policy)
        for queue in subscription_queues(subscription):
            more = {name.replace("_", "-"): value for name, value in work_arguments.items()}
            arguments = {**queue.arguments, **(more if queue.role == "work" else {})}
            await self.channel.declare_queue(queue.name, durable=True, arguments=arguments)

    def set_policy(self, policy: Policy) -> None:
        """Create a policy, or replace the one of that name."""
        path = f"/api/policies/{self.vhost.name}/{quote(policy.name, safe='')}"
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "apply-to": policy.apply_to,
            "priority": policy.priority,
        }
        manage(self.vhost.management_url, "PUT", path, body)

    async def put(self, *messages: aio_pika.Message, queue: str = "payments.dlq") -> None:
        """Lay messages into a queue, confirmed, in order."""
        exchange = self.channel.default_exchange
        for start in range(0, len(messages), PUBLISHED_AT_ONCE):
            part = messages[start : start + PUBLISHED_AT_ONCE]
            await asyncio.gather(*[exchange.publish(each, queue) for each in part])

    async def put_raw(self, *messages: tuple[Properties | bytes, bytes], queue: str = "payments.dlq") -> None:
        """Lay (properties, body) into a queue as they are: aio-pika would invent an id and refuse what is hostile."""
        lane = await Lane.open(self.settings, "test")
        # aio-pika writes priority 0; from RabbitMQ 4.3 on, a message without one would overtake those.
        raw = [
            (each if isinstance(each, bytes) else encode_properties(replace(each, priority=0)), body)
            for each, body in messages
        ]
        receipt = (await ConfirmChannel.open(lane)).publish([Message("", queue, body, each, "") for each, body in raw])
        await receipt.done
        await lane.close()
        assert not receipt.errors

    async def count(self, queue: str) -> int:
        """Messages ready in a queue."""
        found = await (await self.channel.get_queue(queue)).declare()
        return found.message_count or 0

    async def take(self, queue: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
        """Everything ready in a queue, in its order, removed."""
        found: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        messages = await self.count(queue)
        source = await self.channel.get_queue(queue)
        tag = await source.consume(found.put, no_ack=True)
        async with asyncio.timeout(20):
            taken = [await found.get() for _ in range(messages)]
        await source.cancel(tag)
        assert found.empty()
        return taken

    async def ids(self, queue: str) -> list[str]:
        """The ids in a queue, in its order; they are removed."""
        return [each.message_id or "" for each in await self.take(queue)]

    async def command(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run `pipeline dlq ...` to its end. Returns (exit code, standard output, standard error)."""
        process = await self.start(*arguments)
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start `pipeline dlq ...` as a process of its own."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, *arguments, env=self.environ, stdin=pipe, stdout=pipe, stderr=pipe
        )


@asynccontextmanager
async def bench(vhost: TestVhost, folder: Path) -> AsyncIterator[Bench]:
    """A connected `Bench` whose queues are not declared yet."""
    connection = await aio_pika.connect(vhost.amqp_url)
    try:
        yield Bench(vhost, folder, await connection.channel())
    finally:
        await connection.close()


def letter(
    number: int,
    error: str = "ValueError",
    kind: str = "order.created",
    body: bytes | None = None,
    event_id: str | None = None,
    headers: Mapping[str, Any] | None = None,
) -> aio_pika.Message:
    """A dead letter as a worker sends it; the higher the number, the later it died."""
    at = f"2026-11-20T10:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
    failures = [{"attempt": n, "at": at, "error": error, "message": "card refused"} for n in (1, 2, 3)]
    told: Mapping[str, Any] = {
        "cloudEvents_source": "shop",
        "cloudEvents_specversion": "1.0",
        message.REASON: "exhausted",
        message.ERROR: error,
        message.ERROR_MESSAGE: "card refused",
        message.TRACEBACK: f"Traceback (most recent call last):\n  in take_payment\n{error}: card refused\n",
        message.ATTEMPT: 3,
        message.FIRST_FAILURE: at,
        message.LAST_FAILURE: at,
        message.HISTORY: json.dumps(failures),
        message.SUBSCRIPTION: "payments",
        message.EXCHANGE: "events",
        message.ROUTING_KEY: kind,
    }
    return aio_pika.Message(
        json.dumps({"order_id": number}).encode() if body is None else body,
        message_id=f"order-{number:05d}" if event_id is None else event_id,
        type=kind,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={**told, **(headers or {})},
    )


def letters(numbers: Iterable[int], **facts: Any) -> list[aio_pika.Message]:
    """Several letters."""
    return [letter(number, **facts) for number in numbers]


def event_ids(numbers: Iterable[int]) -> list[str]:
    """The ids of the letters with these numbers."""
    return [f"order-{number:05d}" for number in numbers]
