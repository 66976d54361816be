"""Durations and times on the command line. In: `90s`, `2027-01-31T06:00+01:00`. Out: when it is, or what is wrong."""

from __future__ import annotations

from datetime import datetime

import typer


def due_option(after: str | None, at: str | None) -> datetime | None:
    """When an event with these options is due; None for at once. Raises: typer.BadParameter, InvalidDelay."""
    if after is None and at is None:
        return None
    from pipeline.codec.delay import due_time

    return due_time(None if after is None else seconds_of(after), None if at is None else moment_of(at))


def seconds_of(text: str) -> float:
    """Seconds of `90s`, `1.5h`, `30d`. Raises: typer.BadParameter."""
    from pipeline.topology.scalars import duration_ms

    milliseconds = duration_ms(text)
    if milliseconds is None:
        raise typer.BadParameter(f"{text!r} is no duration such as 500ms, 90s, 5m, 2h or 30d")
    return float(milliseconds) / 1000


def moment_of(text: str) -> datetime:
    """The moment of an ISO 8601 text, in the local time zone when it names none. Raises: typer.BadParameter."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(f"{text!r} is no time such as 2027-01-31T06:00 or 2027-01-31T06:00:00+01:00") from None
