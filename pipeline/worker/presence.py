"""A worker process tells that it lives. In: who it is, the databases it works with. Out: rows there, every few seconds.

Best effort, in the background: a database that is away makes the process look gone to whoever asks it later, no more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

from pipeline.event import new_id, utc_now
from pipeline.log import get_logger
from pipeline.observe.consumers import BEAT
from pipeline.store.consumers import ConsumerRow
from pipeline.store.store import Store

log = get_logger("presence")

REMEMBERED = timedelta(hours=1)  # since a process was last seen; then those that still work for it forget it


def this_process(subscriptions: Sequence[str]) -> ConsumerRow:
    """Who we are. The id is new in every life; it is our consumer tag on the broker, too."""
    now = utc_now()
    try:
        library = version("event-pipeline")
    except PackageNotFoundError:  # run from sources that nobody installed
        library = "unknown"
    name = f"pipeline worker {', '.join(subscriptions)}"
    return ConsumerRow(new_id(), name, socket.gethostname(), os.getpid(), library, now, now)


class Presence:
    """Tells one subscription's database of this process."""

    def __init__(self, me: ConsumerRow, store: Store, event_types: Sequence[str]) -> None:
        self._me = me
        self._store = store
        self._event_types = tuple(event_types)
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Tell, again and again, until `end`."""
        while not self._ending.is_set():
            now = utc_now()
            try:
                await self._store.note_consumer(replace(self._me, last_seen=now), self._event_types, now - REMEMBERED)
            except Exception as error:  # noqa: BLE001 - nothing here may end a worker
                log.debug("could not tell that this process lives", error=str(error))
            try:
                async with asyncio.timeout(BEAT):
                    await self._ending.wait()
            except TimeoutError:
                continue
        try:
            await self._store.forget_consumer(self._me.id)
        except Exception as error:  # noqa: BLE001 - see above
            log.debug("could not tell that this process ends", error=str(error))

    def end(self) -> None:
        """This process ends in order: take its row out, once; `run` then returns."""
        self._ending.set()
