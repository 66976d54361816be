"""What befalls an event of an ordered subscription, as plain values. In: a worker's decisions. Out: what is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from pipeline.errors import RowRejected
from pipeline.store.writes import Effects

LineState: TypeAlias = Literal["retrying", "dead", "parked"]

MARKER_TYPE = "pipeline.marker"  # in the inbox, the type of what says that a partition of before is empty


@dataclass(frozen=True, slots=True)
class LineRow:
    """One failed event. `place` 0 holds nobody up; the store finds the right one for a parked key."""

    event_id: str
    key: str
    state: LineState
    attempt: int
    redrives: int = 0
    next_at: datetime | None = None
    place: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of one event: its `effects`, or the `line` that says how it failed.

    `key` None is in nobody's way. `had_line`: a row of it goes with the commit. `holds`: dead or parked, it holds up
    what follows of its key.
    """

    partition: str
    key: str | None
    event_id: str
    effects: Effects | None = None
    line: LineRow | None = None
    had_line: bool = False
    holds: bool = False


@dataclass(slots=True)
class OrderedReport:
    """How each entry of a batch ended, by its index; `stale` are partitions that somebody else has taken.

    What is in none of them is committed. `skipped` were not, because an earlier event of their key was rejected.
    """

    duplicates: set[int] = field(default_factory=set)
    rejected: dict[int, RowRejected] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
