"""When a schedule ticks. Pure: no clock of its own. In: a schedule and moments. Out: ticks, aware, UTC, ascending.

`every` counts from 1970 in UTC, so that every scheduler finds the same ticks. `cron` means the clock of its time zone.
When that clock is changed (the rules of Debian's cron, which cronsim follows): a rule with a fixed minute and hour
ticks once that day, at the first moment behind a gap, and the first time of a doubled hour. Rules with `*` or `*/n` in
minute or hour go by the time that passes: nothing in the gap, the doubled hour twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pipeline.topology.model import Schedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = timedelta(minutes=1)  # a tick that is later was missed; before, another scheduler is just taking over
_WINDOWS = tuple(timedelta(days=days) for days in (1 / 24, 1, 32, 366, 366 * 60))


def ticks(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """The ticks behind `after`, for ever; none when the rule never comes again."""
    if schedule.every:
        period = timedelta(seconds=schedule.every)
        tick = EPOCH + ((after - EPOCH) // period + 1) * period
        while True:
            yield tick
            tick += period
    last = after.astimezone(UTC)
    for local in CronSim(schedule.cron, after.astimezone(ZoneInfo(schedule.timezone))):
        tick = local.astimezone(UTC)
        # Begun within a doubled hour, the clock's reading alone would give ticks of its first pass; two readings of a
        # gap are the same moment.
        if tick > last:
            yield tick
            last = tick


def next_ticks(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next `count` ticks behind `after`."""
    return list(islice(ticks(schedule, after), count))


def due_ticks(schedule: Schedule, last: datetime, now: datetime) -> Iterator[datetime]:
    """The ticks behind `last`, up to `now`, that are to be published: each, or what `missed` says when some were."""
    first = next(ticks(schedule, last), None)
    if first is None or first > now:
        return
    if first >= now - LATE or schedule.missed == "all":
        yield from _until(schedule, last, now)
    elif schedule.missed == "skip":
        yield from _until(schedule, now - LATE - timedelta(microseconds=1), now)
    elif tick := _latest(schedule, last, now):
        yield tick


def _until(schedule: Schedule, after: datetime, upto: datetime) -> Iterator[datetime]:
    for tick in ticks(schedule, after):
        if tick > upto:
            return
        yield tick


def _latest(schedule: Schedule, after: datetime, upto: datetime) -> datetime | None:
    """The last tick behind `after`, up to `upto`: sought near the end first, for there may be very many."""
    for window in _WINDOWS:
        newest = deque(_until(schedule, max(after, upto - window), upto), maxlen=1)
        if newest:
            return newest[0]
    return None
