"""Which ticks are done. Pure. In: JSON, or nothing. Out: a `Memory`, which is never older than its parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.topology.model import Schedule


@dataclass(frozen=True, slots=True)
class Done:
    """The last tick of a schedule that is done, and the rule it came by: under another rule it means nothing."""

    rule: str
    tick: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """The last tick done by schedule. Schedules that this topology does not know are kept: another version may."""

    done: Mapping[str, Done] = field(default_factory=dict)

    def last(self, schedule: Schedule) -> datetime | None:
        """The last tick done; None when there was none by this rule."""
        found = self.done.get(schedule.name)
        return found.tick if found is not None and found.rule == schedule.rule else None

    def after(self, schedule: Schedule, tick: datetime) -> Memory:
        """The same with `tick` done."""
        return Memory({**self.done, schedule.name: Done(schedule.rule, tick)})

    def to_json(self) -> bytes:
        """As bytes."""
        found = {name: {"rule": each.rule, "tick": each.tick.isoformat()} for name, each in self.done.items()}
        return json.dumps({"done": found}).encode()


def from_json(body: bytes) -> Memory:
    """What `to_json` wrote; what can't be read is not remembered."""
    try:
        found = json.loads(body)["done"].items()
        done = {str(name): Done(str(each["rule"]), _utc(each["tick"])) for name, each in found}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Memory()
    return Memory(done)


def merge(memories: Iterable[Memory]) -> Memory:
    """The later of each schedule."""
    done: dict[str, Done] = {}
    for memory in memories:
        for name, each in memory.done.items():
            if name not in done or each.tick > done[name].tick:
                done[name] = each
    return Memory(done)


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
