"""What there is to draw. In: `Topology`. Out: `Picture`, plain facts in drawing order, for every format alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.topology.expand import expand
from pipeline.topology.model import Binding, Queue, Subscription, Topology, duration_text
from pipeline.topology.partitions import as_one_queue
from pipeline.topology.routing import BUILTIN_EXCHANGES, queues_reached


@dataclass(frozen=True, slots=True)
class EventFact:
    """An event type and the exchange it is published to; `takers` are the queues that get it."""

    name: str
    exchange: str
    takers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """One queue and what follows it. `keys` are (exchange, binding key); a plain queue has no subscription."""

    queue: str
    queue_type: str
    keys: tuple[tuple[str, str], ...]
    subscription: Subscription | None = None

    @property
    def order(self) -> str:
        """How it is kept in order: `8 partitions by data.sku`, "" when it is not."""
        own = self.subscription
        count = own.partitions if own else 0
        return f"{count} partition{'' if count == 1 else 's'} by {own.order_by}" if own and own.order_by else ""

    @property
    def delays(self) -> tuple[str, ...]:
        """The rungs of the retry ladder: `1s`, `5s`."""
        return (
            tuple(duration_text(delay) for delay in dict.fromkeys(self.subscription.retry.delays))
            if self.subscription
            else ()
        )

    @property
    def dead_letters(self) -> str:
        """The dead-letter queue's name, "" when there is none."""
        return self.subscription.dead_letter_queue if self.subscription and self.subscription.dead_letter else ""


@dataclass(frozen=True, slots=True)
class Picture:
    """`exchanges` are (name, type); `links` are the bindings between exchanges."""

    events: tuple[EventFact, ...]
    exchanges: tuple[tuple[str, str], ...]
    links: tuple[Binding, ...]
    lanes: tuple[Lane, ...]


def picture(topology: Topology) -> Picture:
    """The facts to draw: events and lanes in file order, subscriptions before plain queues."""
    # The ladder is a machine of its own, and large; so are the partitions of a subscription.
    bindings = as_one_queue(topology, expand(replace(topology, delay=None)).bindings)
    order = [*topology.subscriptions, *topology.queues]
    events = []
    for event in topology.events.values():
        reached = queues_reached(event, topology.exchanges, bindings)
        events.append(EventFact(event.name, event.exchange, tuple(name for name in order if name in reached)))
    used = {event.exchange for event in events} | {binding.source for binding in bindings}
    types = {name: BUILTIN_EXCHANGES[name].type for name in sorted(used) if name in BUILTIN_EXCHANGES}
    types |= {name: exchange.type for name, exchange in topology.exchanges.items()}
    lanes = [
        Lane(name, "quorum", _keys(name, bindings), subscription)
        for name, subscription in topology.subscriptions.items()
    ]
    lanes += [Lane(name, _type(queue), _keys(name, bindings)) for name, queue in topology.queues.items()]
    links = tuple(binding for binding in bindings if binding.destination_type == "exchange")
    return Picture(tuple(events), tuple(types.items()), links, tuple(lanes))


def _keys(queue: str, bindings: tuple[Binding, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (binding.source, binding.routing_key)
        for binding in bindings
        if binding.destination_type == "queue" and binding.destination == queue
    )


def _type(queue: Queue) -> str:
    return str(queue.arguments.get("x-queue-type", "classic"))
