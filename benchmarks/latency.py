"""One run at an offered rate. In: events a second, seconds. Out: latency of every event, publish to commit.

The publisher keeps to its schedule whatever happens, and an event's latency counts from when it was due.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks import path
from benchmarks.payload import SIZE
from benchmarks.place import Place, place
from benchmarks.processes import Cost, Program, program, python
from benchmarks.programs.timed_worker import FILE
from pipeline.broker.address import Address

PATIENCE = 60.0  # s after the last publish for everything to be committed
PERCENTILES = (0.0, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.999, 100.0)


@dataclass(frozen=True, slots=True)
class Offered:
    """How one run went. `latencies` are milliseconds, sorted; `lost` events were published and never committed."""

    rate: float
    run: path.Run
    latencies: Sequence[float]
    lost: int
    refused: int  # calls of publish that failed
    behind: float  # ms the publisher was behind its schedule at most

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of the events were within."""
        return percentile(self.latencies, percent)

    def curve(self) -> list[tuple[float, float]]:
        """The distribution as (percentile, ms)."""
        return [(float(each), self.percentile(each)) for each in PERCENTILES]


def percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values: the least that is not below `percent` of them."""
    return values[max(0, ceil(len(values) * percent / 100) - 1)]


def offer(broker: Address, rate: float, seconds: float, single: bool = False) -> Offered:
    """Offer `rate` events a second for so long, and wait until all are committed."""
    count = int(rate * seconds)
    wanted = {"rate": rate, "seconds": seconds, "size": SIZE, "single": single}
    with place(broker, ["billing"]) as here:
        file = here.folder / "commits"
        with _worker(here, file) as working:
            command = python("benchmarks.programs.offer", wanted)
            with program(command, here.environment(), "publisher", here.folder) as publisher:
                publisher.expect_ready()
                cost, own = Cost(broker.pid), Cost(working.pid)
                publisher.go()
                report = publisher.result()
                with suppress(path.NotAllCommitted):  # what is missing is counted below
                    path.wait_until_committed(here, count, working, PATIENCE)
                run = path.Run(count, seconds, report["cpu"], own.seconds(), cost.seconds())
        # The worker has ended: the database is as a user would find it.
        return _offered(rate, run, report, file, count - path.committed(here))


@contextmanager
def _worker(here: Place, file: Path) -> Iterator[Program]:
    """A worker process that notes its commit times."""
    command = [sys.executable, "-m", "benchmarks.programs.timed_worker", "billing", "--json", "--log-level", "info"]
    environment = {**here.environment(), FILE: str(file)}
    with program(command, environment, "worker", here.folder, talks=False) as running:
        running.wait_for_log('"event": "working"')
        yield running


def _offered(rate: float, run: path.Run, report: dict[str, Any], file: Path, lost: int) -> Offered:
    pairs = array("q")
    pairs.frombytes(file.read_bytes())
    committed = dict(zip(pairs[0::2], pairs[1::2], strict=True))
    began = report["began"]
    latencies = sorted((at / 1e9 - began - number / rate) * 1e3 for number, at in committed.items())
    return Offered(rate, run, latencies, lost, report["failed"], report["most_behind"] * 1e3)
