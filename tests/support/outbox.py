"""An outbox under test. In: events with numbers. Out: what a queue got of them, and whether it is right.

Right is: every accepted event is there, an event that is there twice has the same id, and the first arrivals of each
type are in the order in which they were accepted.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aio_pika.abc import AbstractIncomingMessage

from pipeline.amqp.publisher import Publisher
from pipeline.codec import Codec
from pipeline.event import Event, utc_now
from pipeline.message import Message
from pipeline.outbox import Relay, holder_name
from pipeline.store.producer import Acceptance, NewEvent, ProducerStore
from pipeline.topology.model import Topology
from tests.support.publishing import TOPOLOGY
from tests.support.rabbit import Rabbit
from tests.support.topologies import DEADLINE, until

KINDS = ("order.created", "order.full", "order.lost")
ROOM = 1_000_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message that came out of a queue."""

    id: str
    kind: str
    number: int


def new_events(
    count: int, kinds: Sequence[str] = KINDS[:1], first: int = 0, topology: Topology = TOPOLOGY, exchange: str = ""
) -> list[NewEvent]:
    """So many events, of these types in turn, with ids and payloads that tell their number."""
    codec = Codec(topology, 1024 * 1024)
    found = []
    for number in range(first, first + count):
        kind, payload = kinds[number % len(kinds)], {"order_id": number}
        given = Event(kind, payload, f"{kind}-{number}", "/test", utc_now())
        message = codec.encode(given)
        if exchange:
            message = Message(exchange, message.routing_key, message.body, message.properties, message.message_id)
        found.append(NewEvent(given.id, kind, "/test", None, given.time, json.dumps(payload).encode(), message))
    return found


async def accept(store: ProducerStore, events: Sequence[NewEvent]) -> None:
    """Accept all of them, in order."""
    for first in range(0, len(events), 1000):
        part = events[first : first + 1000]
        assert await store.accept(part, ROOM) == [Acceptance.ACCEPTED] * len(part)


async def empty(store: ProducerStore, deadline: float = DEADLINE) -> None:
    """Wait until nothing waits any more."""

    async def nothing() -> bool:
        return not await store.waiting(1)

    await until(nothing, "an empty outbox", deadline)


async def consumed(seen: Rabbit, queue: str, ids: set[str], deadline: float = DEADLINE) -> list[Arrived]:
    """All that is in the queue, in its order, once every one of these ids has come out."""
    found: list[Arrived] = []
    missing = set(ids)
    done = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        event_id = message.message_id or ""
        found.append(Arrived(event_id, message.routing_key or "", json.loads(message.body)["order_id"]))
        missing.discard(event_id)
        if not missing:
            done.set()

    source = await seen.channel.get_queue(queue, ensure=False)
    tag = await source.consume(take, no_ack=True)
    try:
        async with asyncio.timeout(deadline):
            await done.wait()
    except TimeoutError:
        raise AssertionError(f"{len(missing)} of {len(ids)} never came, e.g. {sorted(missing)[:3]}") from None
    await source.cancel(tag)
    return found


def check(found: Sequence[Arrived], events: Sequence[NewEvent]) -> int:
    """Every event is there, and first arrivals are in order within each type; how many doubles there are."""
    assert {each.id for each in found} == {event.id for event in events}
    firsts: dict[str, list[int]] = defaultdict(list)
    known: set[str] = set()
    for each in found:
        if each.id not in known:
            known.add(each.id)
            firsts[each.kind].append(each.number)
    for kind, numbers in firsts.items():
        assert numbers == sorted(numbers), f"{kind} came in another order than it was accepted in"
    return len(found) - len(known)


@asynccontextmanager
async def relaying(store: ProducerStore, publisher: Publisher, holder: str = "") -> AsyncIterator[Relay]:
    """A relay that runs for the block, then ends in order."""
    relay = Relay(store, publisher, holder or holder_name())
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await running
