"""Emptying the partitions of earlier generations before today's are consumed. In: their queues. Out: they are empty.

Nothing is routed to them any more. A *marker* is put behind what they hold; when a worker has settled everything before
it, its id goes into the inbox. That holds whoever consumes the queue, and whatever is in flight somewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.amqp.partitions import older_partitions
from pipeline.amqp.publisher import Publisher
from pipeline.errors import Unroutable
from pipeline.event import new_id
from pipeline.log import get_logger
from pipeline.message import Message
from pipeline.properties import Properties, encode_properties
from pipeline.settings import Settings
from pipeline.store.patience import patiently
from pipeline.store.store import Store
from pipeline.topology.model import Subscription
from pipeline.worker.ordered.life import MARKER

log = get_logger("ordered")

AGAIN = 0.5  # seconds between looks whether the markers have come through


async def older(settings: Settings, subscription: Subscription) -> list[list[str]]:
    """The queues to empty first, one group after the other. Raises: TopologyDrift while it catches up; BrokerError.

    They are asked of the management API: without it nobody can know of them, so a worker does not start.
    """
    return await older_partitions(settings, subscription)


async def put_markers(publisher: Publisher, queues: Sequence[str]) -> list[str]:
    """Put a marker behind what lies in each queue; their ids. A queue that is gone needs none."""
    waiting = {queue: f"marker-{new_id()}" for queue in queues}
    ids = []
    while waiting:
        names = list(waiting)
        messages = [_marker(name, waiting[name]) for name in names]
        errors = await publisher.send(messages)
        for index, name in enumerate(names):
            error = errors.get(index)
            if error is None:
                ids.append(waiting.pop(name))
            elif isinstance(error, Unroutable):
                del waiting[name]
        if waiting:
            await asyncio.sleep(AGAIN)
    return ids


def _marker(queue: str, marker_id: str) -> Message:
    properties = Properties(message_id=marker_id, headers={MARKER: True})
    return Message("", queue, b"", encode_properties(properties), marker_id)


async def markers_through(store: Store, subscription: str, ids: Sequence[str]) -> None:
    """Wait until all markers have come through."""
    while len(await patiently(subscription, lambda: store.seen(ids))) < len(ids):  # noqa: ASYNC110 - in the database
        await asyncio.sleep(AGAIN)
    log.info("the partitions of before are empty", subscription=subscription)
