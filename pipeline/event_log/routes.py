"""Which events of the log a subscription takes. In: the topology. Out: a test of an `Entry`, by its bindings."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.event_log.entry import Entry
from pipeline.topology.expand import expand
from pipeline.topology.model import EventType, Topology
from pipeline.topology.partitions import as_one_queue
from pipeline.topology.routing import queues_reached

ROUTES_KEPT = 10_000


def takes(topology: Topology, subscription: str) -> Callable[[Entry], bool]:
    """Whether the subscription would get the event if it were published now."""
    bindings = as_one_queue(topology, expand(topology).bindings)
    known: dict[tuple[str, str], bool] = {}

    def taken(entry: Entry) -> bool:
        route = (entry.exchange, entry.routing_key)
        found = known.get(route)
        if found is None:
            if len(known) >= ROUTES_KEPT:
                known.clear()
            published = EventType("", exchange=route[0], routing_key=route[1])
            found = known[route] = subscription in queues_reached(published, topology.exchanges, bindings)
        return found

    return taken
