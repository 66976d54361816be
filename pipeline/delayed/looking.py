"""Look at what waits without changing anything. In: settings and topology. Out: `Waiting` values, soonest first."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from pipeline.amqp.delay_queues import look_through
from pipeline.delayed.waiting import Waiting, read_waiting
from pipeline.errors import NoDelayLadder
from pipeline.settings import Settings
from pipeline.topology.model import Delay, Topology

_NEVER = datetime.max.replace(tzinfo=UTC)


def ladder_of(topology: Topology) -> Delay:
    """The topology's delay ladder. Raises: NoDelayLadder."""
    if topology.delay is None:
        raise NoDelayLadder("the topology declares no delay ladder, so nothing waits; `delay: {max: 30d}` adds one")
    return topology.delay


async def look(settings: Settings, topology: Topology, types: Collection[str] = ()) -> list[Waiting]:
    """Everything that waits, or just these event types; the soonest first, then by id.

    Raises: NoDelayLadder, ObjectMissing, ObjectLocked, BrokerError.
    """
    found = await look_through(settings, ladder_of(topology), lambda _: False)
    # What moved to a shorter wait during the look was met twice.
    waiting = dict.fromkeys(read_waiting(delivery, queue) for queue, delivery in found)
    wanted = [each for each in waiting if not types or each.type in types]
    return sorted(wanted, key=lambda each: (each.due or _NEVER, each.id))
