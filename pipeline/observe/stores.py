"""The subscriptions' databases, to read in. In: settings. Out: a `Store` of each, opened when it is first asked for.

One that can't be reached must not hold up whoever asks about the others, nor be tried again by every request.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from pipeline.errors import StoreError, StoreUnavailable
from pipeline.settings import Settings
from pipeline.store.store import Store

AGAIN = 1.0  # s before a database that could not be opened is tried again


@dataclass(frozen=True, slots=True)
class _Refused:
    error: str
    until: float


class Stores:
    """Opens each database once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stores: dict[str, Store] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._refused: dict[str, _Refused] = {}

    async def of(self, subscription: str) -> Store:
        """The subscription's store. Raises: StoreUnavailable; ConfigurationError when its URL can't be used."""
        if (store := self._stores.get(subscription)) is not None:
            return store
        async with self._opening.setdefault(subscription, asyncio.Lock()):
            if (store := self._stores.get(subscription)) is not None:
                return store
            refused = self._refused.get(subscription)
            if refused is not None and time.monotonic() < refused.until:
                raise StoreUnavailable(refused.error)
            try:
                store = await Store.open(self._settings.database_of(subscription), subscription)
            except StoreError as error:
                self._refused[subscription] = _Refused(str(error), time.monotonic() + AGAIN)
                raise
            self._stores[subscription] = store
            return store

    async def close(self) -> None:
        """Close all of them."""
        stores, self._stores = self._stores, {}
        await asyncio.gather(*(store.close() for store in stores.values()))
