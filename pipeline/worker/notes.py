"""What failed, told to the database in the background. In: settled failures, events processed after one. Out: notes.

Best effort, and never in anybody's way: settling doesn't wait for it, and while the database is away notes are kept,
the oldest dropped when there are too many. What is lost then is a better answer to "where is this event".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any

from pipeline.errors import StoreUnavailable
from pipeline.event import utc_now
from pipeline.log import get_logger
from pipeline.retry import GiveUp, RetryLater
from pipeline.store.failures import WORKER_DIED, FailureNote
from pipeline.store.store import Store
from pipeline.worker.settle import Settlement
from pipeline.worker.work import Work

log = get_logger("notes")

GATHER = 0.1  # s between a note and its write: one transaction for many
AT_ONCE = 1000  # notes in one transaction
WAITING = 10_000  # notes kept while the database is away; the oldest are dropped
AGAIN = 1.0  # s before a database that was away is tried again


class FailureNotes:
    """Notes of one subscription. `failed` and `processed` never wait."""

    def __init__(self, store: Store, subscription: str) -> None:
        self._store = store
        self._subscription = subscription
        self._notes: dict[str, FailureNote] = {}
        self._done: dict[str, None] = {}  # processed after all: their notes may go
        self._wake = asyncio.Event()
        self._ending = False

    def failed(self, settlement: Settlement) -> None:
        """This failure is settled: its copy is confirmed, or it is dropped."""
        failed = settlement.failed
        if not failed.event_id:
            return
        self._done.pop(failed.event_id, None)
        self._notes.pop(failed.event_id, None)  # the newest go last
        if len(self._notes) >= WAITING:
            del self._notes[next(iter(self._notes))]
        self._notes[failed.event_id] = note_of(settlement)
        self._wake.set()

    def processed(self, event_ids: Sequence[str]) -> None:
        """These are committed, and had failed before."""
        for event_id in event_ids:
            self._notes.pop(event_id, None)
            if len(self._done) < WAITING:
                self._done[event_id] = None
        self._wake.set()

    async def suspected(self, work: Work, limit: int) -> None:
        """Workers died with this in hand, and it is about to be handled: written first, for this one may die as well.

        `limit` is the queue's delivery limit. A database that does not take the note keeps nobody from handling.
        """
        nth = work.delivery.delivery_count + 1
        words = f"a worker died or lost its connection while holding it; now it is handled alone, {nth} of {limit + 1}"
        event, now = work.event, utc_now()
        note = FailureNote(event.id, event.type, "retrying", work.attempt, None, WORKER_DIED, words, now)
        try:
            await self._try(self._store.note_failures([note]))
        except StoreUnavailable as error:
            log.debug("a suspect is not noted", subscription=self._subscription, error=str(error))

    async def run(self) -> None:
        """Write what is noted, until `end`."""
        while not self._ending or self._notes or self._done:
            await self._wake.wait()
            self._wake.clear()
            if not self._ending:
                await asyncio.sleep(GATHER)
            try:
                await self._write()
            except StoreUnavailable as error:
                log.debug("the database is away, notes wait", subscription=self._subscription, error=str(error))
                if self._ending:
                    return
                self._wake.set()
                await asyncio.sleep(AGAIN)

    def end(self) -> None:
        """Write what is left, once; `run` then returns."""
        self._ending = True
        self._wake.set()

    async def _write(self) -> None:
        while self._done:
            batch = list(self._done)[:AT_ONCE]
            await self._try(self._store.forget_failures(batch))
            for event_id in batch:
                self._done.pop(event_id, None)
        while self._notes:
            notes = dict(list(self._notes.items())[:AT_ONCE])
            await self._try(self._store.note_failures(list(notes.values())))
            for event_id, note in notes.items():
                if self._notes.get(event_id) is note:
                    del self._notes[event_id]

    async def _try(self, writing: Coroutine[Any, Any, None]) -> None:
        try:
            await writing
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - no permission, no table: nothing here may end a worker
            log.warning("notes of failures are dropped", subscription=self._subscription, error=str(error))


def note_of(settlement: Settlement) -> FailureNote:
    """What is to be remembered of a settled failure."""
    failed, now = settlement.failed, utc_now()
    error = f"{failed.failure.kind}: {failed.failure.message}"
    match settlement.decision:
        case RetryLater(_, wait):
            next_at = now + timedelta(seconds=wait)
            return FailureNote(failed.event_id, failed.event_type, "retrying", failed.attempt, next_at, "", error, now)
        case GiveUp(reason):
            return FailureNote(failed.event_id, failed.event_type, "dead", failed.attempt, None, reason, error, now)
