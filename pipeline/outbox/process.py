"""The relay as a process of its own. In: settings. Out: the outbox published, until SIGTERM or SIGINT.

It needs the producer's database and the broker, and neither topology nor models: what it publishes was encoded when
it was accepted. A broker that is away at the start is waited for as one that goes away later.
"""

from __future__ import annotations

import asyncio
import os
import signal

from pipeline.amqp.publisher import Publisher
from pipeline.log import get_logger
from pipeline.outbox.relay import Relay, holder_name
from pipeline.settings import Settings
from pipeline.store.producer import ProducerStore
from pipeline.topology.model import Topology

log = get_logger("outbox")


async def run_relay(settings: Settings) -> None:
    """Relay until told to stop; then end the batch in hand.

    Raises: ConfigurationError; StoreUnavailable when the database can't be used at the start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = await ProducerStore.open(settings.producer_database_url)
    try:
        publisher = Publisher(Topology({}, {}, {}, {}, (), {}), settings)
        try:
            relay = Relay(store, publisher, holder_name())
            log.info("relaying", pid=os.getpid(), broker=settings.broker_found_in)
            await relay.run(stop)
            log.info("ended", published=relay.published)
        finally:
            await publisher.close()
    finally:
        await store.close()
