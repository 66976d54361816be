"""Latency from publish to commit at offered rates, and whether anything is lost."""

from __future__ import annotations

from benchmarks.bench import Bench, Measure
from benchmarks.latency import Offered, offer
from benchmarks.results import Curve, Outcome, Row, Table, spread
from benchmarks.scale import Scale

RATE = 10_000  # events/s of the promise
TARGET = 200.0  # ms
SHOWN = (50.0, 95.0, 99.0, 99.9, 100.0)
COLUMNS = ["offered/s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "publisher µs", "worker µs", "broker µs"]


def run(bench: Bench, outcome: Outcome) -> None:
    """Every rate once a round; the promised rate also with a call of its own for each event."""
    cases = {(rate, False): seconds for rate, seconds in bench.scale.offered}
    cases[RATE, True] = min(20.0, cases[RATE, False])
    runs: dict[tuple[int, bool], list[Offered]] = {case: [] for case in cases}
    for number in bench.rounds():
        for (rate, single), seconds in cases.items():
            how = ", a publish call for each" if single else ""
            bench.say(f"offered: {rate:,} events/s for {seconds:.0f} s{how}", number)
            runs[rate, single].append(offer(bench.broker, rate, seconds, single))
    promised = runs[RATE, False]
    p99 = spread(each.percentile(99) for each in promised)
    lost = sum(each.lost + each.refused for every in runs.values() for each in every)
    count = sum(each.run.count for every in runs.values() for each in every)
    what = f"offered {RATE:,} events/s for {cases[RATE, False]:.0f} s: publish to commit, p99"
    outcome.rows += [
        Row(what, "< 200 ms", p99.text("{:,.1f}", " ms"), p99.median < TARGET),
        Row(f"of {count:,} events offered, lost", "0", f"{lost:,}", lost == 0),
    ]
    outcome.tables.append(
        Table("Latency from publish to commit", COLUMNS, [_line(*each) for each in runs.items()]),
    )
    for (rate, single), every in runs.items():
        if not single:
            # Of the runs, the one whose p99 is the middle one: a curve of a run that really was.
            middle = sorted(every, key=lambda each: each.percentile(99))[len(every) // 2]
            outcome.curves.append(Curve(f"{rate:,}/s", middle.curve()))
    behind = max(each.behind for each in promised)
    outcome.notes.append(
        "An event's latency is from the moment it was due in the schedule to the return of the worker's commit, so "
        f"what the publisher was behind counts too (at {RATE:,}/s at most {behind:.0f} ms). Figures are the median of "
        "the rounds, p99 with least and most. Processor time is per event, all threads of a process."
    )


def _line(case: tuple[int, bool], runs: list[Offered]) -> list[str]:
    rate, single = case
    cells = [f"{rate:,}" + (", one a call" if single else "")]
    for percent in SHOWN:
        values = spread(each.percentile(percent) for each in runs)
        cells.append(values.text("{:,.1f}") if percent == 99 else f"{values.median:,.1f}")
    costs = zip(*(each.run.microseconds() for each in runs), strict=True)
    return [*cells, *(f"{spread(each).median:.1f}" for each in costs)]


def seconds(scale: Scale) -> float:
    """About."""
    total = sum(each for _, each in scale.offered) + min(20.0, dict(scale.offered)[RATE])
    return scale.rounds * (total + 7 * (len(scale.offered) + 1))


MEASURE = Measure(
    "offered",
    "A publisher process offers 250-byte events at a fixed rate, an open loop; a worker process runs the whole path. "
    "The events due at one turn of the publisher's loop go in one `publish_many`; in the row «one a call» each goes "
    "in a `publish` and a task of its own.",
    seconds,
    run,
)
