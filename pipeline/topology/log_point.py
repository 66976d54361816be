"""Where in the event log something begins or ends. In: `first`, `2h`, a time, an offset. Out: `LogPoint`s.

A time without a zone means the local one. A duration counts back from the moment it is resolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.topology.scalars import duration_ms

FIRST = "first"
LONGEST = timedelta(days=36_500)
FORMS = "first, a duration such as 2h or 7d, a time such as 2027-01-31T06:00+01:00, or an offset such as 1500"
_MAX_OFFSET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LogPoint:
    """One of: an `offset` (0 is the beginning, whatever is left of it), a `time` (aware), or `ago` before now."""

    offset: int | None = None
    time: datetime | None = None
    ago: timedelta | None = None

    def resolved(self, now: datetime) -> int | datetime:
        """The offset, or the moment."""
        if self.offset is not None:
            return self.offset
        if self.time is not None:
            return self.time
        assert self.ago is not None
        return now - self.ago


def log_point(text: str) -> LogPoint:
    """The point that `text` names. Raises: ValueError that says what it could be."""
    word = text.strip()
    if word == FIRST:
        return LogPoint(offset=0)
    if word.isascii() and word.isdigit() and len(word) < 20 and int(word) <= _MAX_OFFSET:
        return LogPoint(offset=int(word))
    milliseconds = duration_ms(word)
    if milliseconds is not None:
        if milliseconds > LONGEST.total_seconds() * 1000:
            raise ValueError(f"{text!r} is longer than a hundred years")
        return LogPoint(ago=timedelta(milliseconds=float(milliseconds)))
    try:
        return LogPoint(time=datetime.fromisoformat(word).astimezone())
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:60]!r} is none of: {FORMS}") from None
