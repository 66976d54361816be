"""Remove dead letters for good. In: a subscription and a selection. Out: `Report`.

All chosen letters go at once, at the end: whatever interrupts the command before leaves every one of them in place.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.dead_letters.choosing import Choice
from pipeline.dead_letters.exporting import lines_of, whole_file
from pipeline.dead_letters.looking import dead_letter_queue
from pipeline.dead_letters.progress import Report, Watcher, nobody
from pipeline.dead_letters.selection import Selection
from pipeline.dead_letters.unparking import unpark
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Subscription


async def discard(
    settings: Settings,
    subscription: Subscription,
    selection: Selection,
    *,
    export_to: Path | None = None,
    dry_run: bool = False,
    watch: Watcher = nobody,
) -> Report:
    """Remove the selected dead letters; with `export_to`, only once they are safely in that file.

    Raises: ConfigurationError, ObjectMissing, ObjectLocked, BrokerError; StoreError when keys are parked behind letters
        of this subscription and its database can't be used.
    """
    async with open_dead_letter_queue(settings, dead_letter_queue(subscription)) as queue:
        choice = Choice(subscription, selection, queue.count, watch)
        async with queue.hold() as hold:
            doomed: list[Delivery] = []
            ids: list[str] = []
            with ExitStack() as files:
                write = files.enter_context(whole_file(export_to)) if export_to and not dry_run else None
                async for batch in hold.batches(queue.count):
                    chosen = choice.among(batch)
                    if write:
                        await asyncio.to_thread(write, lines_of(chosen, subscription))
                    doomed += [_without_content(delivery) for delivery in chosen]
                    ids += [delivery.readable.message_id for delivery in chosen]
                    choice.count(seen=len(batch), chosen=len(chosen))
            if not dry_run:
                await unpark(settings, subscription, ids)
                hold.remove(doomed)
                choice.count(done=len(doomed))
    return choice.report(dry_run)


def _without_content(delivery: Delivery) -> Delivery:
    """What is needed to remove it; the contents of a whole queue need not be kept in memory for that."""
    return Delivery(
        delivery.tag, delivery.epoch, delivery.redelivered, delivery.exchange, delivery.routing_key, b"", b""
    )
