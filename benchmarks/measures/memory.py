"""Memory of a worker after many events against after few."""

from __future__ import annotations

import psutil

from benchmarks import path
from benchmarks.bench import Bench, Measure
from benchmarks.place import place
from benchmarks.processes import Program
from benchmarks.results import Outcome, Row, Table, spread
from benchmarks.scale import Scale

TARGET = 1.1
MEGABYTE = 1_048_576


def run(bench: Bench, outcome: Outcome) -> None:
    """One worker a round, looked at twice."""
    few, many = bench.scale.memory
    looks: list[tuple[float, float]] = []
    for number in bench.rounds():
        bench.say(f"memory: {many:,} events through one worker", number)
        with place(bench.broker, ["billing"]) as here, path.worker(here) as working:
            sizes = []
            for first, upto in ((0, few), (few, many)):
                with path.publishing(here, upto - first, first=first) as publisher:
                    publisher.go()
                    publisher.result()
                path.wait_until_committed(here, upto, working)
                sizes.append(_resident(working))
            looks.append((sizes[0], sizes[1]))
    growth = spread(after / before for before, after in looks)
    what = f"memory of a worker after {many:,} events, of that after {few:,}"
    outcome.rows.append(Row(what, "≤ 1.1 ×", growth.text("{:.2f}", " ×"), growth.median <= TARGET))
    rows = [
        [f"{count:,}", spread(look[at] / MEGABYTE for look in looks).text("{:.0f}", " MB")]
        for at, count in enumerate((few, many))
    ]
    outcome.tables.append(Table("Resident memory of the worker process", ["after events", "memory"], rows))


def _resident(working: Program) -> float:
    """Bytes of the worker process, without its supervisor."""
    return float(sum(child.memory_info().rss for child in psutil.Process(working.pid).children(recursive=True)))


def seconds(scale: Scale) -> float:
    """About."""
    return scale.rounds * (scale.memory[1] / 12_000 + 8)


MEASURE = Measure(
    "memory",
    "A worker process runs the whole path flat out. Its resident memory is read when everything published so far is "
    "committed.",
    seconds,
    run,
)
