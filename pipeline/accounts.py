"""Do the books balance? In: a topology. Out: for each subscription, what was published to it and where each event is.

    published = processed + dead-lettered

Counted by event id from the broker and the databases, never from a program's own counters: what was published is read
from a stream that the topology binds to the exchange, what is processed from the inbox table, what is dead from the
dead-letter queue. Retries and ignored duplicates are the broker's own statistics since it started.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.amqp.management import Management, QueueCounters
from pipeline.amqp.stream import read_stream
from pipeline.codec.envelope import attribute, event_time
from pipeline.dead_letters import peek
from pipeline.errors import ConfigurationError, UndecodableBody
from pipeline.message import DELAY_TO, Delivery
from pipeline.properties import Properties
from pipeline.settings import Settings
from pipeline.store.store import Store
from pipeline.topology.expand import expand
from pipeline.topology.model import EventType, Subscription, Topology
from pipeline.topology.partitions import as_one_queue, work_queues
from pipeline.topology.routing import queues_reached

LOOKUP = 10_000  # event ids an inbox look-up


@dataclass(frozen=True, slots=True)
class Account:
    """One subscription's books. All are counts of distinct events; `missing` and `twice` must be 0.

    Messages without an id can only become dead letters, and are counted one by one. `twice` were processed and are dead
    letters as well. `retried` and `duplicates` are counts of messages. `seconds` are from the first event's time to the
    last commit.
    """

    subscription: str
    published: int
    processed: int
    dead_lettered: int
    missing: int
    twice: int
    retried: int
    duplicates: int
    seconds: float
    examples: tuple[str, ...] = ()  # a few ids that are missing

    @property
    def balances(self) -> bool:
        """Published = processed + dead-lettered, event by event."""
        return not self.missing and not self.twice


def log_stream(topology: Topology) -> str:
    """The stream that every published event goes to as well. Raises: ConfigurationError when none is declared."""
    if topology.event_log is not None:
        return topology.event_log.name
    for binding in topology.bindings:
        queue = topology.queues.get(binding.destination)
        if queue is not None and queue.arguments.get("x-queue-type") == "stream" and binding.routing_key == "#":
            return queue.name
    raise ConfigurationError(
        "accounts need to know what was published: declare the event log, e.g. event_log: {exchange: events}"
    )


async def accounts(settings: Settings, topology: Topology, source: str = "") -> list[Account]:
    """The books of every subscription that has a handler.

    With `source` only of events with that CloudEvents source, and of the follow-up events they caused.

    Raises: ConfigurationError, BrokerError, StoreError.
    """
    published, began = await _all_published(settings, topology, source)
    subscriptions = [each for each in topology.subscriptions.values() if each.handler]
    async with Management(settings) as management:
        counters = await management.counters()
    return [await _account(settings, each, published[each.name], began, counters) for each in subscriptions]


@dataclass(slots=True)
class _Published:
    """What went to one subscription: event ids, and the number of messages without one."""

    ids: set[str] = field(default_factory=set)
    nameless: int = 0


async def _all_published(
    settings: Settings, topology: Topology, source: str
) -> tuple[dict[str, _Published], datetime | None]:
    """What went to each subscription, and the time of the first event."""
    began: datetime | None = None
    found = {name: _Published() for name in topology.subscriptions}
    routes = Routes(topology)
    chosen: set[str] = set()
    async for batch in read_stream(settings, log_stream(topology)):
        for delivery in batch:
            properties = delivery.readable
            event_id = properties.message_id or attribute(properties, "id") or ""
            if source:
                cause = attribute(properties, "causationid")
                if attribute(properties, "source") != source and cause not in chosen:
                    continue
                chosen.add(event_id)
            if began is None:
                began = _time(properties)
            for name in routes.subscriptions(delivery):
                if event_id:
                    found[name].ids.add(event_id)
                else:
                    found[name].nameless += 1
    return found, began


def _time(properties: Properties) -> datetime | None:
    """When the event happened, None when it does not say."""
    with suppress(UndecodableBody):
        time = event_time(properties)
        return time if time.timestamp() > 0 else None
    return None


class Routes:
    """Which subscriptions a message went to, worked out from the bindings as the broker does."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._bindings = as_one_queue(topology, expand(topology).bindings)
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def subscriptions(self, delivery: Delivery) -> tuple[str, ...]:
        """Names of the subscriptions whose queue got a copy."""
        came = delivery.readable.headers.get(DELAY_TO)  # what waited comes by another exchange than its own
        route = (came if isinstance(came, str) else delivery.exchange, delivery.routing_key)
        known = self._known.get(route)
        if known is None:
            published = EventType("", exchange=route[0], routing_key=route[1])
            queues = queues_reached(published, self._topology.exchanges, self._bindings)
            known = self._known[route] = tuple(sorted(queues & self._topology.subscriptions.keys()))
        return known


async def _account(
    settings: Settings,
    subscription: Subscription,
    published: _Published,
    began: datetime | None,
    counters: Mapping[str, QueueCounters],
) -> Account:
    processed, ended = await _processed(settings, subscription.name, published.ids)
    letters = await peek(settings, subscription) if subscription.dead_letter else []
    # Of an event that somebody had processed once more by force: how that ended is in no book.
    letters = [letter for letter in letters if not letter.forced]
    dead = {letter.id for letter in letters if letter.id} & published.ids
    nameless_dead = min(published.nameless, sum(not letter.id for letter in letters))
    missing = published.ids - processed - dead
    retried = sum(
        counters[name].published
        for name in {subscription.retry_queue(delay) for delay in subscription.retry.delays}
        if name in counters
    )
    acked = sum(counters[name].acked for name in work_queues(subscription) if name in counters)
    buried = counters.get(subscription.dead_letter_queue, QueueCounters(0, 0)).published
    return Account(
        subscription.name,
        len(published.ids) + published.nameless,
        len(processed),
        len(dead) + nameless_dead,
        len(missing) + published.nameless - nameless_dead,
        len(processed & dead),
        retried,
        max(0, acked - retried - buried - len(processed)),
        round((ended - began).total_seconds(), 1) if began is not None and ended is not None else 0.0,
        tuple(sorted(missing)[:5]),
    )


async def _processed(settings: Settings, subscription: str, ids: set[str]) -> tuple[set[str], datetime | None]:
    """Which of the ids are in the inbox, and when its newest row was committed."""
    store = await Store.open(settings.database_of(subscription), subscription)
    try:
        ordered = sorted(ids)
        found: set[str] = set()
        for at in range(0, len(ordered), LOOKUP):
            found |= await store.seen(ordered[at : at + LOOKUP])
        return found, await store.last_processed()
    finally:
        await store.close()
