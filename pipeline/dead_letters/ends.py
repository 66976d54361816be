"""What a command does to a dead letter, told to the subscription's database. In: letters that go. Out: changed notes.

The notes answer "where is this event". Best effort, after the deed: a database that is away, or is not on this machine,
keeps nobody from dealing with dead letters. Why a command writes there: docs/decisions/0018-retention.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from pipeline.dead_letters.reading import latest_death
from pipeline.errors import ConfigurationError, StoreError
from pipeline.event import utc_now
from pipeline.log import get_logger
from pipeline.message import ATTEMPT, REASON, Delivery
from pipeline.settings import Settings
from pipeline.store.failures import FailureNote
from pipeline.store.opening import file_of
from pipeline.store.store import Store
from pipeline.topology.model import Subscription

log = get_logger("dead letters")

AT_ONCE = 1000  # notes in one transaction


class Ends:
    """Notes of one subscription's dead letters, for one command. Opens the database when there is something to note."""

    def __init__(self, settings: Settings, subscription: Subscription) -> None:
        self._url = settings.database_of(subscription.name)
        self._name = subscription.name
        self._store: Store | None = None
        self._given_up = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()

    async def redriven(self, event_ids: Sequence[str], before: datetime) -> None:
        """These are on their way again since that moment: they are dead no more."""
        ids = [event_id for event_id in event_ids if event_id]
        await self._try(ids, lambda store: store.forget_dead(ids, before))

    async def discarded(self, notes: Sequence[FailureNote]) -> None:
        """These are gone for good."""
        for start in range(0, len(notes), AT_ONCE):
            part = notes[start : start + AT_ONCE]
            await self._write(part)

    async def _write(self, part: Sequence[FailureNote]) -> None:
        await self._try(part, lambda store: store.note_discarded(part))

    async def _try(self, what: Sequence[object], write: Callable[[Store], Awaitable[None]]) -> None:
        if self._given_up or not what:
            return
        try:
            if self._store is None:
                file = file_of(self._url, self._name)
                if file is not None and not file.exists():  # no worker has ever worked here: it is somewhere else
                    self._given_up = True
                    return
                self._store = await Store.open(self._url, self._name)
            await write(self._store)
        except (StoreError, ConfigurationError) as error:
            self._given_up = True
            log.warning("done, but events will still be shown as dead", subscription=self._name, error=str(error))


def discard_note(delivery: Delivery) -> FailureNote:
    """That this letter is gone for good, now."""
    properties = delivery.readable
    headers = properties.headers
    attempt, reason = headers.get(ATTEMPT), headers.get(REASON)
    if not isinstance(reason, str):
        death = latest_death(headers)
        reason = death.reason if death else ""
    made = attempt if isinstance(attempt, int) and attempt > 0 else 0
    return FailureNote(properties.message_id, properties.type, "discarded", made, None, reason, "", utc_now())
