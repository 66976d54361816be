"""Who may be handled next, so that a key's events never overtake each other. Pure. In: arrivals and ends. Out: turns.

    [ handled, not committed … | in turn | waiting … ]      one line a key, oldest first

The next event may be handled while the one before waits for its commit: commits keep the order. When a commit refuses
an event, all that was handled behind it is void, and is handled again after it.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime

from pipeline.message import Delivery
from pipeline.store.ordered.lines import LineRow
from pipeline.worker.work import Failed, Work


class Item:
    """One delivery in a line. `version` changes whenever what was begun with it is void.

    `work` or, when it can't be handled at all, `failed`. `attempt` is the one to come.
    """

    __slots__ = (
        *("arrived", "attempt", "delivery", "event_id", "failed", "key", "marker", "next_at"),
        *("redrives", "row", "running", "version", "work"),
    )

    def __init__(self, delivery: Delivery, key: str | None, event_id: str, work: Work | None, failed: Failed | None):
        self.delivery = delivery
        self.key = key
        self.event_id = event_id
        self.work = work
        self.failed = failed
        self.attempt = work.attempt if work is not None else failed.attempt if failed is not None else 1
        self.redrives = 0
        self.row: LineRow | None = None  # what the database knew of it
        self.next_at: datetime | None = None  # not before, after a crash in the middle of a wait
        self.version = 0
        self.running = False  # in a handler; also when that is void, for one event never runs twice at once
        self.arrived = 0.0
        self.marker = False  # no event: see draining.py


class Line:
    """The events of one key, in the order in which they came."""

    __slots__ = ("ahead", "in_turn", "items")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.ahead = 0  # at the front: handled, their commit is to come
        self.in_turn: Item | None = None  # the first that is not: being handled, waiting for a retry, or dying

    def add(self, item: Item) -> None:
        """It came behind the others."""
        self.items.append(item)

    def next(self) -> Item | None:
        """The event whose turn it is now; None while another's lasts, or when there is none."""
        if self.in_turn is not None or self.ahead >= len(self.items):
            return None
        item = self.items[self.ahead]
        if item.running:  # void, and still in its handler
            return None
        self.in_turn = item
        return item

    def put_back(self, item: Item) -> None:
        """Its turn is over without an outcome; it is next again."""
        if self.in_turn is item:
            self.in_turn = None

    def handled(self, item: Item) -> None:
        """Its effects are on their way to their commit: the next one's turn."""
        assert self.in_turn is item
        self.in_turn = None
        self.ahead += 1

    def done(self, item: Item) -> None:
        """Committed, or dead and buried: it leaves the line."""
        first = self.items[0] is item
        if self.in_turn is item:
            self.in_turn = None
        elif self.ahead and first:  # commits end in the line's order
            self.ahead -= 1
        if first:
            self.items.popleft()
        else:  # of several that were put aside together, one whose copy was confirmed before an earlier one's
            self.items.remove(item)

    def hold(self, items: int) -> list[Item]:
        """Take the turns of the first so many events at once, to put them aside together. Nobody may be ahead."""
        assert not self.ahead
        taken = [self.items[index] for index in range(items)]
        self.in_turn = taken[-1]
        return taken

    def reset(self) -> None:
        """The first one's commit was refused: all that was begun behind it is void."""
        self.ahead = 0
        self.in_turn = None
        for item in self.items:
            item.version += 1
