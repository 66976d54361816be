"""A step of one event of an ordered subscription, as it goes to its commit, and small facts of items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from pipeline.event import utc_now
from pipeline.message import REPLAY
from pipeline.retry import Failure, failure_headers
from pipeline.store.ordered.lines import Entry, LineRow, LineState
from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item, Line
from pipeline.worker.work import Failed, Handled


@dataclass(slots=True)
class Step:
    """Something of one event that is to be committed, and what follows then."""

    life: Life
    line: Line
    item: Item
    version: int
    entry: Entry
    then: Literal["done", "retry", "bury", "run"]
    failed: Failed | None = None
    handled: Handled | None = None
    wait: float = 0.0  # seconds, of a retry

    @property
    def valid(self) -> bool:
        """Whether it still counts."""
        return not self.life.ended and self.version == self.item.version


def line_of(item: Item) -> Line:
    """A line of its own, for what has no place in its key's."""
    line = Line()
    line.add(item)
    return line


def row_of(item: Item, state: LineState, attempt: int, wait: float = 0.0) -> LineRow:
    """What is to be remembered of it; `wait` in seconds until it is tried again."""
    next_at = utc_now() + timedelta(seconds=wait) if wait else None
    return LineRow(item.event_id, item.key or "", state, attempt, item.redrives, next_at)


def died_before(life: Life, item: Item) -> bool:
    """Whether the same event died, or was parked, while this second copy of it waited; a redriven one is another."""
    row = life.rows.get(item.event_id) if item.event_id and item.row is None else None
    if row is None or row.state == "retrying" or item.redrives > row.redrives:
        return False
    return REPLAY not in item.delivery.readable.headers


def remember(item: Item, failed: Failed) -> None:
    """Write the failure into the delivery's headers: a dead letter tells of all of them."""
    properties = item.delivery.readable
    headers = dict(properties.headers)
    headers |= failure_headers(headers, failed.attempt, failed.failure, utc_now().isoformat())
    item.delivery.use(replace(properties, headers=headers), item.delivery.body)


def parked(key: str, first: str) -> Failure:
    """Why an event waits in the dead-letter queue."""
    return Failure("pipeline.Parked", f"key {key!r} is parked: it waits for event {first}", reason="parked")


def type_of(item: Item) -> str:
    """Its event type, "" when that is not known."""
    return item.work.event.type if item.work is not None else item.failed.event_type if item.failed is not None else ""
