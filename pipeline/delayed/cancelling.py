"""Call a delayed event off. In: its id. Out: what was taken out of the ladder, or why nothing was."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.amqp.delay_queues import look_through
from pipeline.delayed.looking import ladder_of
from pipeline.delayed.waiting import Waiting, read_waiting
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Topology

LOOKS = 2  # one on its way between two queues is met by the second look


@dataclass(frozen=True, slots=True)
class Cancellation:
    """`cancelled` will not arrive: each copy that waited under the id. `retries` of that id were left alone."""

    cancelled: tuple[Waiting, ...]
    retries: tuple[Waiting, ...]


async def cancel(settings: Settings, topology: Topology, event_id: str) -> Cancellation:
    """Take the event out before it is due. Either it is taken out, or it arrives: never both, never neither.

    A retry of that id stays: its event was published long ago, and its subscription has still to process it.

    Raises: NoDelayLadder, ObjectMissing, ObjectLocked, BrokerError (then look again whether it is still there).
    """
    delay = ladder_of(topology)
    cancelled: dict[Waiting, None] = {}
    retries: dict[Waiting, None] = {}

    def chosen(delivery: Delivery) -> bool:
        waiting = read_waiting(delivery)
        if waiting.id != event_id:
            return False
        (retries if waiting.is_retry else cancelled)[waiting] = None
        return not waiting.is_retry

    for _ in range(LOOKS):
        await look_through(settings, delay, chosen)
        if cancelled or retries:
            break
    return Cancellation(tuple(cancelled), tuple(retries))
