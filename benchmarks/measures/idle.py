"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time

from benchmarks import path
from benchmarks.bench import Bench, Measure
from benchmarks.place import place
from benchmarks.processes import Cost
from benchmarks.results import Outcome, Row, spread
from benchmarks.scale import Scale

TARGET = 1.0  # % of a core
SETTLE = 3.0  # s after its start


def run(bench: Bench, outcome: Outcome) -> None:
    """One worker a round: the supervisor and its process."""
    shares = []
    for number in bench.rounds():
        bench.say(f"idle: a worker for {bench.scale.idle:.0f} s", number)
        with place(bench.broker, ["billing"]) as here, path.worker(here) as working:
            time.sleep(SETTLE)
            cost, began = Cost(working.pid), time.monotonic()
            time.sleep(bench.scale.idle)
            shares.append(100 * cost.seconds() / (time.monotonic() - began))
    found = spread(shares)
    what = "idle worker, supervisor included: share of a core"
    outcome.rows.append(Row(what, "< 1 %", found.text("{:.2f}", " %"), found.median < TARGET))


def seconds(scale: Scale) -> float:
    """About."""
    return scale.rounds * (scale.idle + SETTLE + 4)


MEASURE = Measure("idle", "A worker of one subscription whose queue is empty.", seconds, run)
