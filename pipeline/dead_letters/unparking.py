"""Keys of an ordered subscription that are parked behind dead letters. In: letters that go. Out: nobody waits for them.

What a parked key waits for is in the subscription's database. A letter that is redriven frees its key when it is
processed; one that is discarded has to be taken out of the line.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.settings import Settings
from pipeline.store.store import Store
from pipeline.topology.model import Subscription


async def unpark(settings: Settings, subscription: Subscription, event_ids: Sequence[str]) -> None:
    """Let nobody wait for these events. Before they are removed: a key must not wait for what is gone.

    Raises: StoreError, ConfigurationError.
    """
    ids = [event_id for event_id in event_ids if event_id]
    if subscription.on_dead != "park" or not ids:
        return
    store = await Store.open(settings.database_of(subscription.name), subscription.name)
    try:
        await store.ordered().forget_lines(ids)
    finally:
        await store.close()
