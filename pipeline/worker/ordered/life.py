"""One time of owning a partition. In: the deliveries of one life of its consumer. Out: lines, and what is unsettled.

It begins with the first delivery and ends with the consumer's life, or when the database says that another process has
taken the partition. What an ended life still had in hand is the broker's again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pipeline.amqp.consumer import Consumer
from pipeline.store.ordered.lines import LineRow
from pipeline.worker.ordered.line import Item, Line

MARKER = "pipeline-marker"  # header: all that came before it in its queue is settled


class Life:
    """`epoch` is the consumer's, `token` the epoch under which this process may commit."""

    def __init__(self, partition: str, consumer: Consumer, epoch: int, token: int, rows: dict[str, LineRow]) -> None:
        self.partition = partition
        self.consumer = consumer
        self.epoch = epoch
        self.token = token
        self.rows = rows  # of failed events; only this life adds to those of its keys
        self.parked = {row.key for row in rows.values() if row.place > 0}
        self.lines: dict[str | None, Line] = {}
        self.open: dict[Item, None] = {}  # unsettled, oldest first
        self.looked_at: dict[str | None, int] = {}  # suspects among the first of each key
        self.ended = False
        self.closing = False  # nothing new is begun
        self.under_way = 0  # steps that wait for their commit or their copy
        self._timers: set[asyncio.TimerHandle] = set()

    def line(self, key: str | None) -> Line:
        """The key's line."""
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line()
        return line

    def add(self, item: Item) -> None:
        """It arrived."""
        item.arrived = time.monotonic()
        self.open[item] = None

    def remove(self, item: Item) -> None:
        """It is settled."""
        self.open.pop(item, None)
        line = self.lines.get(item.key)
        if line is not None and not line.items:
            del self.lines[item.key]

    @property
    def oldest(self) -> Item | None:
        """What came before all else that is unsettled."""
        return next(iter(self.open), None)

    @property
    def quiet(self) -> bool:
        """Nothing is begun and not ended."""
        return not self.under_way and not any(item.running for item in self.open)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it later, unless this life has ended by then."""

        def act() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), act)
        self._timers.add(timer)

    def end(self) -> None:
        """It is over."""
        self.ended = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.open.clear()
        self.lines.clear()
