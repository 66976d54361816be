"""Looks into the event log. In: a selection. Out: its events, the last ones, one by its id, figures."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.amqp.stream import ends_of, offset_of, patient, read_from
from pipeline.errors import ConfigurationError
from pipeline.event import utc_now
from pipeline.event_log.choosing import Selection, chooser, event_log, resolved
from pipeline.event_log.entry import NEVER, Entry
from pipeline.settings import Settings
from pipeline.topology.model import Topology

WINDOW = 1000  # entries looked at first, from the end, for the last ones
FOR_EVER = 365 * 86_400.0  # seconds: who follows waits for the broker
BUCKETS = 24  # of a sparkline
BARS = "▁▂▃▄▅▆▇█"
# Ids that `new_id` makes begin with their time.
OWN_ID = 32
OWN_ID_TIME = 12

Watcher = Callable[[int, int | None], None]  # offsets read, of how many


def _nobody(done: int, total: int | None) -> None:
    """Watch nothing."""


async def events(
    settings: Settings, topology: Topology, selection: Selection, watch: Watcher = _nobody
) -> AsyncIterator[Entry]:
    """The selected events that are in the log now, in its order.

    Raises: NoEventLog, ConfigurationError, BadExpression, LogTruncated when it begins with an offset that is gone.
    """
    log = event_log(topology)
    bounds = resolved(selection, utc_now())
    chosen = chooser(selection, bounds)
    ends = await patient(lambda: ends_of(settings, log.name))
    if ends is None:
        return
    end = ends[1] if bounds.end is None else min(ends[1], bounds.end)
    first: int | None = None
    async for batch in read_from(settings, log.name, bounds.start, end):
        first = offset_of(batch[0]) if first is None else first
        for delivery in batch:
            entry = Entry(delivery, settings.max_body)
            if chosen(entry):
                yield entry
        watch(offset_of(batch[-1]) + 1 - first, end + 1 - first)


async def tail(settings: Settings, topology: Topology, selection: Selection, count: int) -> tuple[list[Entry], int]:
    """The last `count` selected events, oldest first, and the offset behind them. Raises: as `events`."""
    log = event_log(topology)
    chosen = chooser(selection, resolved(selection, utc_now()))
    ends = await patient(lambda: ends_of(settings, log.name))
    if ends is None:
        return [], 0
    first, last = ends
    found: deque[Entry] = deque(maxlen=count)
    window = max(WINDOW, count)
    while count:
        start = max(first, last + 1 - window)
        found.clear()
        async for batch in read_from(settings, log.name, start, last, truncated_ok=True):
            found.extend(entry for each in batch if chosen(entry := Entry(each, settings.max_body)))
        if len(found) == count or start <= first:
            break
        window *= 8
    return list(found), last + 1


async def follow(settings: Settings, topology: Topology, selection: Selection, start: int) -> AsyncIterator[Entry]:
    """Selected events from offset `start` on, as they come, for ever. Raises: as `events`."""
    log = event_log(topology)
    chosen = chooser(selection, resolved(selection, utc_now()))
    async for batch in read_from(settings, log.name, start, follow=True, truncated_ok=True, patience=FOR_EVER):
        for delivery in batch:
            entry = Entry(delivery, settings.max_body)
            if chosen(entry):
                yield entry


async def find(settings: Settings, topology: Topology, event_id: str, watch: Watcher = _nobody) -> Entry | None:
    """The event of this id, as it was first published; None when the log has none. Raises: as `events`."""
    since = _made_at(event_id)
    for selection in (Selection(since=since), Selection()) if since else (Selection(),):
        async for entry in events(settings, topology, selection, watch):
            if entry.id == event_id:
                return entry
    return None


def _made_at(event_id: str) -> str:
    """The time in an id of our making, "" in any other."""
    if len(event_id) != OWN_ID:
        return ""
    try:
        moment = datetime.fromtimestamp(int(event_id[:OWN_ID_TIME], 16) / 1000, NEVER.tzinfo)
    except (ValueError, OverflowError, OSError):
        return ""
    # The event's own time may be set by whoever publishes it, and be older: then the whole log is looked through.
    return (moment - timedelta(minutes=1)).isoformat() if NEVER < moment < utc_now() + timedelta(days=1) else ""


@dataclass(slots=True)
class TypeStats:
    """Figures of one event type; `buckets` are counts over equal parts of the log's time."""

    count: int = 0
    size: int = 0
    first: datetime | None = None
    last: datetime | None = None
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, entry: Entry, bucket: int) -> None:
        """One more."""
        self.count += 1
        self.size += entry.size
        self.first = entry.time if self.first is None else min(self.first, entry.time)
        self.last = entry.time if self.last is None else max(self.last, entry.time)
        self.buckets[bucket] += 1

    @property
    def rate(self) -> float:
        """Events a second between the first and the last."""
        seconds = (self.last - self.first).total_seconds() if self.first and self.last else 0.0
        return self.count / seconds if seconds > 0 else 0.0

    @property
    def sparkline(self) -> str:
        """The buckets as bars."""
        top = max(self.buckets)
        return "".join(BARS[-(-each * (len(BARS) - 1) // top)] if each else " " for each in self.buckets) if top else ""


@dataclass(slots=True)
class Stats:
    """Figures of the log: of all, and by type. `begin` and `end` are offsets, 0 and 0 when it is empty."""

    stream: str
    begin: int = 0
    end: int = 0
    whole: TypeStats = field(default_factory=TypeStats)
    types: dict[str, TypeStats] = field(default_factory=dict)


async def stats(settings: Settings, topology: Topology, selection: Selection, watch: Watcher = _nobody) -> Stats:
    """Count what is selected. Raises: as `events`."""
    found = Stats(event_log(topology).name)
    began: datetime | None = None
    now = utc_now()
    async for entry in events(settings, topology, selection, watch):
        if began is None:
            began, found.begin = entry.time, entry.offset
        found.end = entry.offset
        span = max((now - began).total_seconds(), 0.001)
        bucket = min(BUCKETS - 1, max(0, int((entry.time - began).total_seconds() / span * BUCKETS)))
        found.whole.add(entry, bucket)
        found.types.setdefault(entry.type, TypeStats()).add(entry, bucket)
    return found


async def export(
    settings: Settings, topology: Topology, selection: Selection, to: Path, watch: Watcher = _nobody
) -> int:
    """Write the selected events as JSON Lines, CloudEvents in structured mode; how many. The file is there when it is
    whole. Raises: as `events`; ConfigurationError when it can't be written.
    """
    temporary = to.with_name(f".{to.name}.tmp")
    count = 0
    try:
        with temporary.open("wb") as file:
            async for entry in events(settings, topology, selection, watch):
                file.write(entry.structured() + b"\n")
                count += 1
        temporary.replace(to)
    except OSError as error:
        raise ConfigurationError(f"{to} can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return count
