"""Looking after the outbox. In: settings. Out: how much waits and since when; old published events, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import ConfigurationError
from pipeline.event import utc_now
from pipeline.outbox.relay import LEASE
from pipeline.settings import Settings
from pipeline.store.producer import ProducerStore
from pipeline.topology.scalars import duration_ms


@dataclass(frozen=True, slots=True)
class OutboxView:
    """Numbers of events; `oldest` has waited longest, for `oldest_age` seconds; `relay` is the active one's name."""

    waiting: int
    oldest: datetime | None
    oldest_age: float | None
    accepted: int
    published: int
    relay: str | None


async def look(settings: Settings) -> OutboxView:
    """Look at the outbox now. Raises: ConfigurationError, StoreUnavailable."""
    store = await ProducerStore.open(settings.producer_database_url)
    try:
        status, relay = await store.status(), await store.holder(LEASE)
    finally:
        await store.close()
    age = None if status.oldest is None else max(0.0, (utc_now() - status.oldest).total_seconds())
    return OutboxView(status.waiting, status.oldest, age, status.accepted, status.published, relay)


async def forget(settings: Settings, older_than: str) -> int:
    """Delete events that were published longer ago than `older_than` (`30d`, `12h`); how many.

    Raises: ConfigurationError, StoreUnavailable.
    """
    before = _before(older_than)
    store = await ProducerStore.open(settings.producer_database_url)
    try:
        return await store.forget(before)
    finally:
        await store.close()


def _before(older_than: str) -> datetime:
    age = duration_ms(older_than)
    if age is None:
        raise ConfigurationError(f"--older-than is {older_than!r}; write a duration like 12h, 30d or 90d")
    try:
        return utc_now() - timedelta(milliseconds=float(age))
    except OverflowError:
        raise ConfigurationError(f"--older-than {older_than} lies before the calendar's beginning") from None
