"""Committed results → the cache, in the background. In: results by event id. Out: they are in the cache, or dropped.

Nothing waits for it: what the cache can't take is read from the database by whoever asks first.
"""

from __future__ import annotations

import asyncio

from pipeline.cache.results import ResultCache

WAITING = 10_000  # results; more are dropped while the cache is slower than the worker
WAITING_BYTES = 32 * 1024 * 1024
AT_ONCE = 500


class AfterCommit:
    """Takes results of one subscription right after their commit. `add` never waits."""

    def __init__(self, cache: ResultCache, subscription: str) -> None:
        self._cache = cache
        self._subscription = subscription
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._wake = asyncio.Event()
        self._ending = False
        self.dropped = 0

    def add(self, results: dict[str, bytes]) -> None:
        """Put these into the cache soon. Only what is committed may be given."""
        for event_id, value in results.items():
            if len(self._waiting) >= WAITING or self._bytes + len(value) > WAITING_BYTES:
                self.dropped += 1
                continue
            self._bytes += len(value) - len(self._waiting.get(event_id, b""))
            self._waiting[event_id] = value
        self._wake.set()

    async def run(self) -> None:
        """Write what is added, until `end`."""
        while self._waiting or not self._ending:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = dict(list(self._waiting.items())[:AT_ONCE])
                for event_id, value in batch.items():
                    del self._waiting[event_id]
                    self._bytes -= len(value)
                await self._cache.put_many(self._subscription, batch)

    def end(self) -> None:
        """Write what is left; `run` then returns."""
        self._ending = True
        self._wake.set()
