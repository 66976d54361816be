"""What publishers and consumers under test have in common. In: settings. Out: a publisher of a small topology."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pipeline.amqp.publisher import Publisher
from pipeline.event import Event
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from pipeline.settings import Settings
from tests.support.topologies import topology_of

FILE = """\
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.lost: {exchange: events}
  order.full: {exchange: events}
subscriptions:
  work: {routing_keys: ["#"], exchange: events}
"""
TOPOLOGY = topology_of(FILE)
BOUND = [("events", "order.created")]  # what a test binds its queue to; `order.lost` is bound to nothing


@asynccontextmanager
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """A connected publisher."""
    async with Publisher(TOPOLOGY, settings) as found:
        yield found


def orders(count: int, kind: str = "order.created") -> list[Event[dict[str, int]]]:
    """So many events, with ids that tell their number."""
    return [Event(kind, {"order_id": number}, f"{kind}-{number}") for number in range(count)]


def message(message_id: str, queue: str, body: bytes = b"{}") -> Message:
    """A message straight to a queue."""
    return Message("", queue, body, encode_properties(Properties(message_id=message_id)), message_id)


def messages(ids: Sequence[str], queue: str) -> list[Message]:
    """Several of them."""
    return [message(each, queue) for each in ids]
