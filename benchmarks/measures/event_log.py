"""What the event log costs a publisher: the same events into a queue alone, and into a queue and the log."""

from __future__ import annotations

from benchmarks import path
from benchmarks.bench import COLUMNS, Bench, Measure, line, rates
from benchmarks.results import Outcome, Row, Table, bar, ratio
from benchmarks.scale import Scale

KINDS = {"one queue": False, "one queue and the event log": True}
PROGRAM = "benchmarks.programs.publish"


def run(bench: Bench, outcome: Outcome) -> None:
    """Off and on, in turns."""
    runs: dict[str, list[path.Run]] = {kind: [] for kind in KINDS}
    for number in bench.rounds():
        for kind, event_log in KINDS.items():
            bench.say(f"event log: {kind}", number)
            runs[kind].append(path.publish(bench.broker, PROGRAM, bench.scale.publish, event_log, way="messages"))
    without, logged = runs.values()
    share = ratio([each.rate for each in logged], [each.rate for each in without])
    outcome.rows.append(
        Row("publish with the event log, against without", "a ratio, no target", share.text("{:.2f}", " ×"), None)
    )
    outcome.tables.append(
        Table("Publish with confirms, event log off and on", COLUMNS, [line(*e) for e in runs.items()])
    )
    outcome.bars += [bar("publish, event log", kind, rates(found)) for kind, found in runs.items()]
    outcome.notes.append(
        "The confirm of a logged event waits for the quorum queue and for the stream. Messages are made before the "
        "clock starts, so that the difference is the broker's."
    )


def seconds(scale: Scale) -> float:
    """About."""
    return scale.rounds * len(KINDS) * (scale.publish / 25_000 + 3)


MEASURE = Measure(
    "event_log",
    "One process publishes persistent 250-byte messages and waits for every confirm, with `event_log` declared and "
    "without. Nobody consumes.",
    seconds,
    run,
)
