"""The delay ladder's queues, looked through. In: settings. Out: what waits in them; what was chosen is taken out.

A look takes a whole queue and gives it back at once in its old order (`dead_letter_hold`), for RabbitMQ knows no other
way. What is held does not expire: a message that falls due in that moment is late by the length of the look, a few
milliseconds as a rule. One queue is held at a time, the longest wait first, so that what moves down meanwhile is met
again further down and not missed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipeline.amqp.connection import CLIENT_ERRORS
from pipeline.amqp.dead_letter_hold import Hold
from pipeline.amqp.dead_letter_limit import refuse_low_limit
from pipeline.amqp.lane import Lane
from pipeline.amqp.queue_length import queue_lengths
from pipeline.errors import BrokerUnavailable, ObjectLocked, ObjectMissing
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.delay import LEVELS, PREFIX, UNDELIVERABLE, levels_of, queue_of
from pipeline.topology.model import Delay

LOCK = f"{PREFIX}.lock"
LOCK_PATIENCE = 15.0  # seconds to wait for another command that looks through the ladder
SETTLE_PATIENCE = 15.0  # seconds for the broker to take back what was held
QUIET = 0.05  # seconds without a delivery before asking for the queue's length: what falls due makes it shorter
POLL = 0.02  # seconds between two tries


async def look_through(
    settings: Settings, delay: Delay, chosen: Callable[[Delivery], bool]
) -> list[tuple[str, Delivery]]:
    """Everything that waits, with the queue it waits in; those for which `chosen` is true are no longer there.

    Raises: ObjectMissing when the ladder is not applied; ObjectLocked when another command looks for too long;
        TopologyDrift when looking would cost messages; BrokerError.
    """
    found: list[tuple[str, Delivery]] = []
    async with _ladder(settings) as lane:
        for queue in await _filled(lane, delay):
            await refuse_low_limit(settings, queue)
            found += [(queue, each) for each in await _look(lane, queue, chosen)]
    return found


async def _look(lane: Lane, queue: str, chosen: Callable[[Delivery], bool]) -> list[Delivery]:
    found: list[Delivery] = []
    ready, _ = await queue_lengths(lane, queue)
    hold = Hold(lane, queue, QUIET)
    try:
        async for batch in hold.batches(ready):
            found += batch
        if doomed := [each for each in found if chosen(each)]:
            hold.remove(doomed)
    finally:
        await hold.give_back()
    await _back(lane, queue)
    return found


async def _filled(lane: Lane, delay: Delay) -> list[str]:
    """The queues that are not empty, the longest wait first; those of a ladder that was longer once, too."""
    filled = [UNDELIVERABLE] if (await queue_lengths(lane, UNDELIVERABLE))[0] else []
    for level in reversed(range(LEVELS)):
        try:
            ready, _ = await queue_lengths(lane, queue_of(level))
        except ObjectMissing:
            if level < levels_of(delay):
                raise
            continue
        if ready:
            filled.append(queue_of(level))
    return filled


async def _back(lane: Lane, queue: str) -> None:
    """Wait until the broker has taken everything back, and what was removed is removed. Raises: BrokerError."""
    deadline = time.monotonic() + SETTLE_PATIENCE
    while (await queue_lengths(lane, queue))[1]:
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"{queue} did not take back what was looked at within {SETTLE_PATIENCE:g} s")
        await asyncio.sleep(POLL)


@asynccontextmanager
async def _ladder(settings: Settings) -> AsyncIterator[Lane]:
    """A connection that holds the ladder's lock: an exclusive queue, freed by the broker when the connection ends."""
    lane = await Lane.open(settings, "pipeline delayed")
    deadline = time.monotonic() + LOCK_PATIENCE
    try:
        while True:
            try:
                channel = await lane.plain_channel()
                await channel.queue_declare(
                    LOCK, exclusive=True, auto_delete=True, arguments={"x-queue-type": "classic"}
                )
                break
            except CLIENT_ERRORS as error:
                problem = lane.explain(error)
                if not isinstance(problem, ObjectLocked):
                    raise problem from error
                if time.monotonic() > deadline:
                    raise ObjectLocked(
                        "another `pipeline delayed` command is at work; try again when it ended"
                    ) from error
            await asyncio.sleep(POLL)
        yield lane
    finally:
        await lane.close()
