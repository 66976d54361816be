"""Worker processes and what they serve. In: databases (who told of itself), broker (who consumes). Out: views of both.

A process is *gone* when it has not told of itself for a while; one that ended in order is not there at all. It is
*stalled* when it lives, but the broker knows no consumer of its on a queue that it serves. Otherwise it is *live*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from pipeline.amqp.management import Management
from pipeline.errors import BrokerError, StoreError
from pipeline.event import utc_now
from pipeline.observe.stores import Stores
from pipeline.settings import Settings
from pipeline.store.consumers import ConsumerRow
from pipeline.topology.model import Subscription, Topology
from pipeline.topology.partitions import owner_of

State: TypeAlias = Literal["live", "stalled", "gone"]

BEAT = 5.0  # s between two signs of life of a worker process
GONE = 4 * BEAT  # s without one
STATISTICS = 6.0  # s that RabbitMQ's statistics may be old: it collects them every 5 s unless told otherwise
AGAIN = 0.5  # s between two looks at them
PATIENCE = 5.0  # s for one subscription's database to answer


@dataclass(frozen=True, slots=True)
class Serving:
    """A subscription that a process serves, the event types it has handlers for, and whether the broker says so too."""

    subscription: str
    event_types: tuple[str, ...]
    consuming: bool | None  # None: the broker could not be asked


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """One worker process. `host` and `process` are where it runs; times are aware, UTC, by that host's clock."""

    id: str
    name: str
    host: str
    process: int
    version: str
    started: datetime
    last_seen: datetime
    state: State
    serves: tuple[Serving, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """Who takes which events for a subscription: one for each event type and worker process that is live.

    `consumer` is "" when none is.
    """

    id: str
    consumer: str
    event_type: str


@dataclass(frozen=True, slots=True)
class Crew:
    """All worker processes; `unknown` are the places that could not be asked, by name, and why."""

    consumers: tuple[ConsumerView, ...]
    unknown: Mapping[str, str]


async def crew(settings: Settings, topology: Topology, stores: Stores | None = None) -> Crew:
    """The worker processes of all subscriptions that have a handler, oldest first, and whom it could not ask.

    `stores` are databases that are open already; without, they are opened and closed.
    """
    own = stores is None
    opened = stores or Stores(settings)
    names = [each.name for each in topology.subscriptions.values() if each.handler]
    try:
        told = await asyncio.gather(*(_told(opened, name) for name in names), return_exceptions=True)
    finally:
        if own:
            await opened.close()
    unknown: dict[str, str] = {}
    rows: list[tuple[str, ConsumerRow, tuple[str, ...]]] = []
    for name, found in zip(names, told, strict=True):
        if isinstance(found, (StoreError, TimeoutError)):
            unknown[name] = str(found) or f"its database did not answer within {PATIENCE:g} s"
        elif isinstance(found, BaseException):
            raise found
        else:
            rows += [(name, *each) for each in found]
    consuming: set[tuple[str, str]] | None = None
    if rows:
        try:
            consuming = await _consuming(settings)
        except BrokerError as error:
            unknown["broker"] = str(error)
    now = utc_now()  # when its rows were read
    views = _views(rows, topology.subscriptions, consuming, now)
    # A consumer that began a moment ago is not in the broker's statistics yet: who seems stalled is looked at again.
    waited = 0.0
    while any(each.state == "stalled" for each in views) and waited < STATISTICS:
        await asyncio.sleep(AGAIN)
        waited += AGAIN
        try:
            consuming = await _consuming(settings)
        except BrokerError as error:
            unknown["broker"] = str(error)
            break
        views = _views(rows, topology.subscriptions, consuming, now)
    return Crew(views, unknown)


async def consumers(settings: Settings, topology: Topology, stores: Stores | None = None) -> list[ConsumerView]:
    """The worker processes, oldest first; those of a database that does not answer are left out (see `crew`)."""
    return list((await crew(settings, topology, stores)).consumers)


def unserved(topology: Topology, found: Crew) -> list[str]:
    """Subscriptions with a handler that no live process serves, as far as their databases could be asked."""
    served = {each.subscription for view in found.consumers if view.state == "live" for each in view.serves}
    names = [each.name for each in topology.subscriptions.values() if each.handler]
    return [name for name in names if name not in served and name not in found.unknown]


async def subscriptions(settings: Settings, topology: Topology, stores: Stores | None = None) -> list[SubscriptionView]:
    """For each subscription and event type of the topology the live worker processes that take it."""
    live = [each for each in await consumers(settings, topology, stores) if each.state == "live"]
    found: list[SubscriptionView] = []
    for subscription in topology.subscriptions.values():
        for event_type in subscription.events:
            takers = [
                each.id
                for each in live
                for serving in each.serves
                if serving.subscription == subscription.name and event_type in serving.event_types
            ]
            found += [SubscriptionView(subscription.name, taker, event_type) for taker in takers or [""]]
    return found


async def _told(stores: Stores, subscription: str) -> list[tuple[ConsumerRow, tuple[str, ...]]]:
    async with asyncio.timeout(PATIENCE):
        store = await stores.of(subscription)
        return await store.consumers()


async def _consuming(settings: Settings) -> set[tuple[str, str]]:
    """(consumer tag, queue) of all that consume now."""
    async with Management(settings) as management:
        return await management.consumers()


def _views(
    rows: Iterable[tuple[str, ConsumerRow, tuple[str, ...]]],
    subscriptions: Mapping[str, Subscription],
    consuming: set[tuple[str, str]] | None,
    now: datetime,
) -> tuple[ConsumerView, ...]:
    """One for each process; it tells of itself in every database that it works with."""
    by_id: dict[str, list[tuple[ConsumerRow, Serving]]] = {}
    for name, row, event_types in rows:
        serving = Serving(name, event_types, _consumes(row.id, subscriptions[name], consuming))
        by_id.setdefault(row.id, []).append((row, serving))
    found = [_view([row for row, _ in told], tuple(each for _, each in told), now) for told in by_id.values()]
    return tuple(sorted(found, key=lambda each: (each.started, each.id)))


def _view(rows: Sequence[ConsumerRow], serves: tuple[Serving, ...], now: datetime) -> ConsumerView:
    newest = max(rows, key=lambda row: row.last_seen)
    state: State = "live"
    if (now - newest.last_seen).total_seconds() > GONE:
        state = "gone"
    elif any(each.consuming is False for each in serves):
        state = "stalled"
    facts = (newest.id, newest.name, newest.host, newest.process, newest.version, newest.started, newest.last_seen)
    return ConsumerView(*facts, state, serves)


def _consumes(consumer: str, subscription: Subscription, consuming: set[tuple[str, str]] | None) -> bool | None:
    """Whether it consumes the subscription's queue, or one of its partitions."""
    if consuming is None:
        return None
    queues = {queue for tag, queue in consuming if tag.startswith(consumer)}
    if not subscription.order_by:
        return subscription.queue in queues
    # One that still empties the partitions of before is at work, too.
    return any(owner_of(queue, [subscription.name]) for queue in queues)
