"""What is measured, in the order of the report."""

from __future__ import annotations

from benchmarks.bench import Measure
from benchmarks.measures import (
    consume,
    event_log,
    gateway,
    growth,
    idle,
    memory,
    offered,
    ordered,
    path,
    publish,
    startup,
)

MEASURES: dict[str, Measure] = {
    module.MEASURE.name: module.MEASURE
    for module in (publish, consume, path, ordered, event_log, offered, memory, idle, startup, growth, gateway)
}
