"""Remove dead letters for good. In: a subscription and a selection. Out: `Report`.

All chosen letters go at once, at the end: whatever interrupts the command before leaves every one of them in place.
That they are gone is then noted for whoever asks where the event is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.dead_letters.choosing import Choice
from pipeline.dead_letters.ends import Ends, discard_note
from pipeline.dead_letters.exporting import lines_of, whole_file
from pipeline.dead_letters.looking import dead_letter_queue
from pipeline.dead_letters.progress import Report, Watcher, nobody
from pipeline.dead_letters.selection import Selection
from pipeline.dead_letters.unparking import unpark
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.store.failures import FailureNote
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
            notes: dict[str, FailureNote] = {}
            kept: set[str] = set()
            with ExitStack() as files:
                write = files.enter_context(whole_file(export_to)) if export_to and not dry_run else None
                async for batch in hold.batches(queue.count):
                    chosen = choice.among(batch)
                    if write:
                        await asyncio.to_thread(write, lines_of(chosen, subscription))
                    doomed += [_without_content(delivery) for delivery in chosen]
                    ids += [delivery.readable.message_id for delivery in chosen]
                    notes |= {note.event_id: note for note in map(discard_note, chosen)}
                    kept |= _ids_of_others(batch, chosen)
                    choice.count(seen=len(batch), chosen=len(chosen))
            if not dry_run:
                await unpark(settings, subscription, ids)
                hold.remove(doomed)
                choice.count(done=len(doomed))
                async with Ends(settings, subscription) as ends:
                    # Of an event with two letters, one may stay: then it is still dead.
                    await ends.discarded([note for event_id, note in notes.items() if event_id not in kept])
    return choice.report(dry_run)


def _ids_of_others(batch: Sequence[Delivery], chosen: Sequence[Delivery]) -> set[str]:
    if len(chosen) == len(batch):
        return set()
    tags = {(delivery.epoch, delivery.tag) for delivery in chosen}
    return {each.readable.message_id for each in batch if (each.epoch, each.tag) not in tags}


def _without_content(delivery: Delivery) -> Delivery:
    """What is needed to remove it; the contents of a whole queue need not be kept in memory for that."""
    return Delivery(
        delivery.tag, delivery.epoch, delivery.redelivered, delivery.exchange, delivery.routing_key, b"", b""
    )
