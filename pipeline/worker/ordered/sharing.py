"""Which process should hold which partition. In: who works for the subscription, by their signs of life. Out: ours.

RabbitMQ gives a queue to its first consumer, so the first process has all partitions. Every process works out the same
shares, and gives back what it holds of another's; the queue then goes to whoever stands first in line, and from there
on, until its own has it. Only speed depends on this: who holds a partition is RabbitMQ's word, who may commit the
database's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from pipeline.errors import StoreUnavailable
from pipeline.log import get_logger
from pipeline.observe.consumers import GONE
from pipeline.store.store import Store

log = get_logger("sharing")

LONGEST_PATIENCE = 60.0  # seconds until what came back to us is given away again


class Shares:
    """The shares of one subscription's partitions; `me` is this process's consumer id."""

    def __init__(self, store: Store, me: str) -> None:
        self._store = store
        self._me = me
        self._seen: dict[str, tuple[datetime, float]] = {}  # last sign of life, and when by our clock it changed
        self._members: tuple[str, ...] = ()
        self._not_before: dict[str, float] = {}
        self._patience: dict[str, float] = {}

    async def look(self) -> None:
        """See who is there. A process counts until its signs of life stay away, by our own clock."""
        try:
            rows = [row for row, _ in await self._store.consumers()]
        except StoreUnavailable:
            return  # the shares stay as they are
        now = time.monotonic()
        for row in rows:
            before = self._seen.get(row.id)
            if before is None or before[0] != row.last_seen:
                self._seen[row.id] = (row.last_seen, now)
        known = {row.id for row in rows}
        self._seen = {key: value for key, value in self._seen.items() if key in known}
        # Ids sort by time of start: who joins comes last, and moves as little as can be.
        members = tuple(sorted(key for key, (_, since) in self._seen.items() if now - since < GONE))
        if members != self._members:
            self._members = members
            self._not_before.clear()
            self._patience.clear()
            log.info("sharing partitions", processes=len(members))

    def not_ours(self, held: str, partitions: Sequence[str]) -> bool:
        """Whether a partition we hold should be given back now. Asking says that it will be."""
        if self._me not in self._members or held not in partitions:
            return False
        if self._members[partitions.index(held) % len(self._members)] == self._me:
            return False
        now = time.monotonic()
        if now < self._not_before.get(held, 0.0):
            return False
        # It may come back: its own process may have died, or not consume it yet.
        patience = min(LONGEST_PATIENCE, 2 * self._patience.get(held, 0.5))
        self._patience[held] = patience
        self._not_before[held] = now + patience
        return True
