"""What every measure is given, and how it says where it is. In: broker, scale, measures. Out: progress lines.

Time left is the estimates of what is still to do, corrected by how right they were so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.path import Run
from benchmarks.results import Outcome, Spread, spread
from benchmarks.scale import Scale
from pipeline.broker.address import Address


class Progress:
    """Lines that say what is done now and how long the rest may take."""

    def __init__(self, estimates: list[float]) -> None:
        self._estimates = estimates  # seconds, one a measure
        self._began = time.monotonic()
        self._measure_began = self._began
        self._at = 0

    def next_measure(self) -> None:
        """The measure before is done."""
        self._at += 1
        self._measure_began = time.monotonic()

    def say(self, words: str) -> None:
        """Say it, with the time left."""
        now = time.monotonic()
        done = sum(self._estimates[: self._at])
        took = self._measure_began - self._began
        pace = took / done if done else 1.0
        rest = sum(self._estimates[self._at :]) * pace - (now - self._measure_began)
        minutes, seconds = divmod(max(0, round(rest)), 60)
        print(f"[{minutes:2d}:{seconds:02d} left] {words}", flush=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """The broker to use, how much to measure, and where to say what goes on."""

    broker: Address
    scale: Scale
    progress: Progress

    def rounds(self) -> Iterator[int]:
        """Each round does everything once, so that what is compared is measured side by side."""
        yield from range(1, self.scale.rounds + 1)

    def say(self, words: str, number: int = 0) -> None:
        """Say it; `number` is that of the round."""
        self.progress.say(f"{words} (round {number} of {self.scale.rounds})" if number else words)


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: `seconds` estimates how long it takes."""

    name: str
    about: str
    seconds: Callable[[Scale], float]
    run: Callable[[Bench, Outcome], None]


COLUMNS = ["what", "events/s", "publisher µs", "consumer µs", "broker µs"]


def line(what: str, runs: list[Run]) -> list[str]:
    """A table's line (`COLUMNS`): rate with spread, processor time an event by kind of process."""
    costs = [spread(each).median for each in zip(*(run.microseconds() for run in runs), strict=True)]
    return [what, rates(runs).text(), *(f"{cost:.1f}" if cost else "" for cost in costs)]


def rates(runs: list[Run]) -> Spread:
    """Events a second of each run."""
    return spread(run.rate for run in runs)
