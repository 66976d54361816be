"""Which events of the log are meant. In: types, times, offsets, an expression. Out: a range of the stream, and a test.

RabbitMQ finds a time only by chunks, and by its own clock; the publishers' clocks differ from it, and what waited in an
outbox or a delay carries an older time. So the stream is entered earlier than asked, read to the end, and each event is
judged by its own `time`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import ConfigurationError, NoEventLog
from pipeline.event_log.entry import Entry
from pipeline.event_log.expression import compiled
from pipeline.topology.findings import did_you_mean
from pipeline.topology.log_point import LogPoint, log_point
from pipeline.topology.model import EventLog, Topology
from pipeline.topology.routing import is_pattern, topic_matches

SKEW = timedelta(minutes=10)  # publishers' clocks may be ahead of the broker's by this much


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for, as text: the arguments of a command."""

    types: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Range:
    """`since` and `until`, resolved: an offset or a moment each, None for no bound. `until` is not in it."""

    since: int | datetime | None = None
    until: int | datetime | None = None

    @property
    def start(self) -> int | datetime:
        """Where reading begins."""
        if isinstance(self.since, datetime):
            return self.since - SKEW
        return self.since or 0

    @property
    def end(self) -> int | None:
        """The last offset in it, where that is known."""
        return self.until - 1 if isinstance(self.until, int) else None


def point(text: str, name: str) -> LogPoint | None:
    """The point that an option names, None for "". Raises: ConfigurationError."""
    try:
        return log_point(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def resolved(selection: Selection, now: datetime) -> Range:
    """The bounds of the selection. Raises: ConfigurationError when they can't be read, or are the wrong way round."""
    since, until = point(selection.since, "--since"), point(selection.until, "--until")
    found = Range(since.resolved(now) if since else None, until.resolved(now) if until else None)
    first, last = found.since, found.until
    empty = isinstance(first, datetime) and isinstance(last, datetime) and last <= first
    if empty or (isinstance(first, int) and isinstance(last, int) and last <= first):
        raise ConfigurationError(f"--until {selection.until} is not behind --since {selection.since}")
    return found


def chooser(selection: Selection, bounds: Range) -> Callable[[Entry], bool]:
    """Whether an entry is chosen. Raises: BadExpression."""
    tests: list[Callable[[Entry], bool]] = []
    if selection.types:
        tests.append(_by_type(selection.types))
    since, until = bounds.since, bounds.until
    if isinstance(since, datetime):
        tests.append(lambda entry: entry.time >= since)
    elif since:
        tests.append(lambda entry: entry.offset >= since)
    if isinstance(until, datetime):
        tests.append(lambda entry: entry.time < until)
    elif until is not None:
        tests.append(lambda entry: entry.offset < until)
    if selection.where:
        tests.append(compiled(selection.where))
    return lambda entry: all(test(entry) for test in tests)


def _by_type(types: Sequence[str]) -> Callable[[Entry], bool]:
    known: dict[str, bool] = {}

    def chosen(entry: Entry) -> bool:
        name = entry.type
        found = known.get(name)
        if found is None:
            found = any(topic_matches(each, name) if is_pattern(each) else each == name for each in types)
            if len(known) < 10_000:
                known[name] = found
        return found

    return chosen


def check_types(types: Sequence[str], topology: Topology) -> None:
    """Refuse a type that no declared one fits: it is misspelt more often than not. Raises: ConfigurationError."""
    for name in types:
        if name not in topology.events and not (
            is_pattern(name) and any(topic_matches(name, event) for event in topology.events)
        ):
            hint = did_you_mean(name, topology.events)
            raise ConfigurationError(f"no declared event fits --type {name} ({hint})")


def event_log(topology: Topology) -> EventLog:
    """The declared log. Raises: NoEventLog."""
    if topology.event_log is None:
        names = [event.exchange for event in topology.events.values()] or list(topology.exchanges) or ["events"]
        raise NoEventLog(
            "the topology declares no event log; add `event_log: {exchange: "
            f"{names[0]}}}` to it and `pipeline topology apply`: from then on every event is kept"
        )
    return topology.event_log
