"""Times as the library's tables keep them: ISO 8601 text in UTC. In: aware datetimes. Out: text, and back."""

from __future__ import annotations

from datetime import UTC, datetime


def as_text(time: datetime) -> str:
    """`2026-01-31T12:00:00.000Z`: sorts by time."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_time(text: str) -> datetime:
    """The aware time that `as_text` wrote."""
    return datetime.fromisoformat(text)
