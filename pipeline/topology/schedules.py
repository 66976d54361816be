"""`schedules:` → `Schedule`s. In: checked data and the declared events. Out: schedules; problems with their places.

Ticks are reckoned in `pipeline.scheduler.ticks`; here it is made sure that they can be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from pipeline.topology.findings import Findings, Path, did_you_mean
from pipeline.topology.model import EventType, Policy, Queue, Schedule

QUEUE = "pipeline.scheduler"
POLICY = "pipeline._scheduler"  # no subscription's: their names don't begin with an underscore
DEFAULT_MISSED = "once"


def scheduler_queue() -> Queue:
    """The queue that makes one scheduler the active one and remembers which ticks are done."""
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    return Queue(QUEUE, arguments=arguments, role="scheduler")


def scheduler_policy(definition: Mapping[str, Any], priority: int) -> Policy:
    """Keeps policies of the whole virtual host away from it."""
    return Policy(POLICY, rf"^{QUEUE.replace('.', '[.]')}$", definition, "queues", priority)


def resolve_schedules(
    data: Mapping[str, Any], events: Mapping[str, EventType], findings: Findings
) -> dict[str, Schedule]:
    """The declared schedules."""
    schedules = {}
    for name, entry in data.items():
        path = ("schedules", name)
        _check_rule(entry, path, findings)
        event = entry.get("event", "")
        if event and event not in events:
            findings.error((*path, "event"), f"no event {event} is declared", did_you_mean(event, events))
        elif event:
            _check_data(entry.get("data", {}), events[event], path, findings)
        schedules[name] = Schedule(
            name,
            event,
            entry.get("data", {}),
            entry.get("cron", ""),
            entry.get("timezone", "UTC"),
            entry.get("every", 0) // 1000,
            entry.get("missed", DEFAULT_MISSED),
        )
    return schedules


def check_scheduler_name(schedules: Mapping[str, Schedule], queues: Mapping[str, Any], findings: Findings) -> None:
    """Refuse a queue that is named like the schedulers' own."""
    for section, names in queues.items():
        if schedules and QUEUE in names:
            findings.error((section, QUEUE), "the schedulers have a queue of this name", "rename it", key=True)


def _check_rule(entry: Mapping[str, Any], path: Path, findings: Findings) -> None:
    if "cron" in entry and "every" in entry:
        findings.error((*path, "every"), "can't stand beside cron", "keep one of them", key=True)
    elif "cron" not in entry and "every" not in entry and not findings.broken(path):
        findings.error(path, "cron or every is missing", 'cron: "0 6 * * *", or every: 5m', key=True)
    if "every" in entry and entry["every"] % 1000:
        findings.error((*path, "every"), "must be whole seconds")
    if "timezone" in entry and "cron" not in entry and "every" in entry:
        findings.error((*path, "timezone"), "is only for cron", "leave it out: every counts from 1970 in UTC", key=True)
    if "timezone" in entry:
        _check_timezone(entry["timezone"], (*path, "timezone"), findings)
    if "cron" in entry:
        _check_cron(entry["cron"], (*path, "cron"), findings)


def _check_timezone(name: str, path: Path, findings: Findings) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        findings.error(path, f"there is no time zone {name}", did_you_mean(name, sorted(available_timezones())))


def _check_cron(expression: str, path: Path, findings: Findings) -> None:
    if len(expression.split()) != 5:
        hint = "minute, hour, day of the month, month, day of the week; every: 10s for seconds"
        findings.error(path, f"has {len(expression.split())} fields; it must have five", hint)
        return
    try:
        next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)))
    except StopIteration:
        findings.error(path, f"{expression} never comes", "no year has such a day")
    except (CronSimError, ValueError) as error:
        findings.error(path, f"{str(error)[:1].lower()}{str(error)[1:]} in {expression!r}", 'such as "0 6 * * MON-FRI"')


def _check_data(data: Mapping[str, Any], event: EventType, path: Path, findings: Findings) -> None:
    """Against the event's JSON Schema. A model is not imported to read a topology: the scheduler checks that one."""
    if not event.schema or findings.broken(("events", event.name)):
        return
    import jsonschema_rs

    try:
        schema = json.loads(FilePath(event.schema).read_bytes())
        jsonschema_rs.validate(schema, dict(data))
    except jsonschema_rs.ValidationError as error:
        where = (*path, "data") if (*path, "data") in findings.values else path
        findings.error(where, f"does not fit the schema of {event.name}: {error.message}", key=where == path)
    except (OSError, ValueError, jsonschema_rs.ReferencingError):
        return  # the event's own entry says so
