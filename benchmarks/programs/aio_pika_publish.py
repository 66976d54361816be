"""Publishes with aio-pika, confirmed. In: how many, how large, how many in flight. Out: when it began and ended.

Messages are made before the clock starts, and carry the same properties and headers as ours. `lean` leaves out time and
headers: less than ours do, to aio-pika's advantage.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import aio_pika
import uvloop

from benchmarks.payload import EVENT_TYPE, body, event_id
from benchmarks.protocol import Clock, arguments, ready
from pipeline.settings import load_settings


def message(number: int, size: int, lean: bool) -> aio_pika.Message:
    """Order `number`."""
    made = aio_pika.Message(
        body(number, size),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=event_id(number),
        type=EVENT_TYPE,
    )
    if not lean:
        now = datetime.now(UTC)
        made.timestamp = now
        made.headers = {
            "cloudEvents_specversion": "1.0",
            "cloudEvents_source": "pipeline",
            "cloudEvents_time": now.isoformat(),
        }
    return made


async def main() -> None:
    """Publish from as many tasks as may be in flight, each awaiting its confirm."""
    wanted = arguments()
    connection = await aio_pika.connect(load_settings().amqp_url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange("events", ensure=False)
        rest = iter([message(number, wanted["size"], wanted["lean"]) for number in range(wanted["count"])])

        async def sender() -> None:
            for each in rest:
                await exchange.publish(each, EVENT_TYPE, mandatory=True)

        ready()
        clock = Clock()
        await asyncio.gather(*(sender() for _ in range(wanted["in_flight"])))
        clock.report(wanted["count"])


if __name__ == "__main__":
    uvloop.run(main())
