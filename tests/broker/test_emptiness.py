"""When `--until-empty` believes that nothing is left, on a real broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipeline.amqp.management import Management
from pipeline.amqp.session import Session
from pipeline.worker.emptiness import CHECK, CHECKS, until_empty
from tests.support.broker import TestVhost
from tests.support.consuming import QUEUE, consuming
from tests.support.rabbit import rabbit, settings_for
from tests.support.topologies import until

WAITING = "waiting"
SEVERAL_LOOKS = 3 * CHECK * CHECKS  # seconds, in which it would have ended
PATIENCE = 90.0  # seconds: what was refused is sent again after 5, by itself after 180


@dataclass
class Done:
    """A worker with nothing in hand."""

    idle: bool = True
    consumed: list[str] = field(default_factory=lambda: [QUEUE])
    waited_for: list[str] = field(default_factory=list)

    async def nothing_left(self) -> bool:
        """Nor in its database."""
        return True


async def test_a_retry_on_its_way_back_that_its_queue_could_not_take_is_waited_for(vhost: TestVhost) -> None:
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, Session(settings, "test") as session, Management(settings) as management:
        # Given a message whose wait in a retry queue is over, and that can't go back: its queue is not there
        await seen.queue(QUEUE)
        await seen.queue(
            WAITING,
            x_message_ttl=50,
            x_dead_letter_exchange="",
            x_dead_letter_routing_key="back",
            x_dead_letter_strategy="at-least-once",
            x_overflow="reject-publish",
        )
        await seen.put(WAITING, b"again")

        async def counted() -> bool:
            return await management.held([WAITING]) == {WAITING: (1, True)}

        # then it is among those that the queue holds, though AMQP says that there is none
        await until(counted, "the message is counted", PATIENCE)
        await seen.until_count(WAITING, 0)
        assert (await management.queue(WAITING)).held == 1
        async with consuming(settings):
            waiting = asyncio.create_task(until_empty(settings, session, [Done(waited_for=[WAITING])]))
            await asyncio.wait([waiting], timeout=SEVERAL_LOOKS)
            assert not waiting.done()

            # When the queue is there, then the message is soon sent again, and that was all
            await seen.queue("back")
            async with asyncio.timeout(PATIENCE):
                await waiting
        assert [each.body for each in await seen.take("back")] == [b"again"]


async def test_a_queue_that_nobody_is_said_to_consume_is_not_taken_for_empty(vhost: TestVhost) -> None:
    # Given a worker's queue whose numbers are zeros, as of one without a leader
    settings = settings_for(vhost)
    async with rabbit(vhost) as seen, Session(settings, "test") as session:
        await seen.queue(QUEUE)
        waiting = asyncio.create_task(until_empty(settings, session, [Done()]))
        await asyncio.wait([waiting], timeout=SEVERAL_LOOKS)
        assert not waiting.done()

        # When it is known to have a consumer, then it is empty
        async with consuming(settings), asyncio.timeout(PATIENCE):
            await waiting
