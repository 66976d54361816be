"""Moments ↔ text as the tables keep it: ISO 8601 in UTC, so that it sorts. In: aware datetimes. Out: text, and back."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.event import utc_now


def now_text() -> str:
    """Now, to the millisecond."""
    return utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_of(moment: datetime) -> str:
    """The moment, to the microsecond; always as long, so that it sorts."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment_of(text: str) -> datetime:
    """The moment, aware, UTC."""
    return datetime.fromisoformat(text)
