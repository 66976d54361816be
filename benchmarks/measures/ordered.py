"""What order costs: the whole path with ordered subscriptions against an unordered one."""

from __future__ import annotations

from benchmarks import path
from benchmarks.bench import COLUMNS, Bench, Measure, line, rates
from benchmarks.results import Outcome, Row, Table, bar, ratio
from benchmarks.scale import Scale

KINDS = {
    "unordered": "",
    "ordered by data.sku: 977 keys, 8 partitions": ", order_by: data.sku, partitions: 8",
    "ordered by type: 1 key, 1 partition": ", order_by: type, partitions: 1",
}
EVENTS = 3  # parts of the whole path's events that are enough here


def run(bench: Bench, outcome: Outcome) -> None:
    """The three kinds, side by side."""
    runs: dict[str, list[path.Run]] = {kind: [] for kind in KINDS}
    for number in bench.rounds():
        for kind, more in KINDS.items():
            bench.say(f"ordered: {kind}", number)
            runs[kind].append(path.whole_path(bench.broker, bench.scale.path // EVENTS, more=more))
    plain, keys, _ = runs.values()
    share = ratio([each.rate for each in keys], [each.rate for each in plain])
    outcome.rows.append(
        Row("ordered by key, against unordered", "a ratio, no target", share.text("{:.2f}", " ×"), None)
    )
    outcome.tables.append(Table("The whole path, ordered", COLUMNS, [line(*each) for each in runs.items()]))
    outcome.bars += [bar("whole path, ordered", kind.partition(":")[0], rates(found)) for kind, found in runs.items()]
    outcome.notes.append(
        "One worker process. An ordered event passes two exchanges more, its key travels as a header and is read from "
        "the body once more by the publisher; its commit checks who owns the partition."
    )


def seconds(scale: Scale) -> float:
    """About."""
    return scale.rounds * len(KINDS) * (scale.path / EVENTS / 6_000 + 8)


MEASURE = Measure(
    "ordered",
    "The same events through the same handler: published flat out, handled and committed by one worker process, with "
    "and without order. The clock runs from the first publish to the last commit.",
    seconds,
    run,
)
