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
        self._opening: dict[str, asyncio.Task[Store]] = {}
        self._refused: dict[str, _Refused] = {}

    async def of(self, subscription: str) -> Store:
        """The subscription's store. Raises: StoreUnavailable; ConfigurationError when its URL can't be used."""
        if (store := self._stores.get(subscription)) is not None:
            return store
        refused = self._refused.get(subscription)
        if refused is not None and time.monotonic() < refused.until:
            raise StoreUnavailable(refused.error)
        if (opening := self._opening.get(subscription)) is None:
            opening = self._opening[subscription] = asyncio.create_task(self._open(subscription))
            opening.add_done_callback(_seen)
        # Opening is not to be interrupted; whoever has no more patience need not wait for it all the same.
        return await asyncio.shield(opening)

    async def close(self) -> None:
        """Close all of them."""
        if self._opening:
            await asyncio.wait(self._opening.values())
        stores, self._stores = self._stores, {}
        await asyncio.gather(*(store.close() for store in stores.values()))

    async def _open(self, subscription: str) -> Store:
        try:
            store = await Store.open(self._settings.database_of(subscription), subscription)
        except StoreError as error:
            self._refused[subscription] = _Refused(str(error), time.monotonic() + AGAIN)
            raise
        finally:
            del self._opening[subscription]
        self._stores[subscription] = store
        return store


def _seen(opening: asyncio.Task[Store]) -> None:
    if not opening.cancelled():
        opening.exception()  # though nobody may wait for it any more
