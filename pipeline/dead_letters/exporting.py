"""Write dead letters down. In: a subscription and a selection. Out: JSON Lines, one letter a line; the queue unchanged.

A file is there whole or not at all, and for its owner's eyes only: payloads hold what customers gave away.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.amqp.dead_letter_queue import open_dead_letter_queue
from pipeline.dead_letters.as_json import json_line
from pipeline.dead_letters.choosing import Choice
from pipeline.dead_letters.looking import dead_letter_queue
from pipeline.dead_letters.progress import Report, Watcher, nobody
from pipeline.dead_letters.reading import read_dead_letter
from pipeline.dead_letters.selection import Selection
from pipeline.errors import ConfigurationError
from pipeline.message import Delivery
from pipeline.settings import Settings
from pipeline.topology.model import Subscription

Write = Callable[[bytes], object]


async def export(
    settings: Settings, subscription: Subscription, selection: Selection, write: Write, *, watch: Watcher = nobody
) -> Report:
    """Hand the lines of the selected letters to `write`, in the queue's order. Nothing is removed.

    `write` is called in a thread: it may block without the connection being lost.

    Raises: ConfigurationError, ObjectMissing, ObjectLocked, BrokerError, whatever `write` raises.
    """
    async with open_dead_letter_queue(settings, dead_letter_queue(subscription)) as queue:
        choice = Choice(subscription, selection, queue.count, watch)
        async with queue.hold() as hold:
            async for batch in hold.batches(queue.count):
                chosen = choice.among(batch)
                await asyncio.to_thread(write, lines_of(chosen, subscription))
                choice.count(seen=len(batch), chosen=len(chosen), done=len(chosen))
    return choice.report()


def lines_of(deliveries: list[Delivery], subscription: Subscription) -> bytes:
    """The JSON lines of these messages."""
    return b"".join([json_line(read_dead_letter(delivery, subscription)) for delivery in deliveries])


@contextmanager
def whole_file(path: Path) -> Iterator[Write]:
    """Yield a function that writes to what becomes `path` when the block ends well; else nothing is left behind.

    Raises: ConfigurationError when the place can't be written to.
    """
    unfinished: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        unfinished = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream.write
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
