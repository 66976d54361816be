"""Publish with confirms, one process: ours against aio-pika."""

from __future__ import annotations

from benchmarks import path
from benchmarks.bench import COLUMNS, Bench, Measure, line, rates
from benchmarks.results import Outcome, Row, Table, bar, ratio
from benchmarks.scale import Scale

TARGET = 8.0
IN_FLIGHT = 500
OURS = "benchmarks.programs.publish"
AIO_PIKA = "benchmarks.programs.aio_pika_publish"


def run(bench: Bench, outcome: Outcome) -> None:
    """Ours in three ways, aio-pika in two."""
    scale = bench.scale
    kinds: dict[str, tuple[str, int, dict[str, object]]] = {
        "pipeline: messages made before": (OURS, scale.publish, {"way": "messages"}),
        "pipeline: events validated and encoded, 500 a call": (OURS, scale.publish, {"way": "events"}),
        "pipeline: the same, one a call from 500 tasks": (OURS, scale.publish // 2, {"way": "single"}),
        "aio-pika: the same messages made before": (AIO_PIKA, scale.publish_aio_pika, {"lean": False}),
        "aio-pika: body, id and type only": (AIO_PIKA, scale.publish_aio_pika, {"lean": True}),
    }
    runs: dict[str, list[path.Run]] = {kind: [] for kind in kinds}
    for number in bench.rounds():
        for kind, (module, count, wanted) in kinds.items():
            bench.say(f"publish: {kind}", number)
            runs[kind].append(path.publish(bench.broker, module, count, in_flight=IN_FLIGHT, **wanted))
    ours, validated, _, same, _ = runs.values()
    faster = ratio([each.rate for each in ours], [each.rate for each in same])
    outcome.rows.append(
        Row("publish with confirms, against aio-pika", "≥ 8 ×", faster.text("{:.1f}", " ×"), faster.median >= TARGET)
    )
    outcome.tables.append(Table("Publish with confirms, one process", COLUMNS, [line(*each) for each in runs.items()]))
    outcome.bars += [
        bar("publish, confirmed", "pipeline", rates(ours)),
        bar("publish, confirmed", "pipeline, with validation", rates(validated)),
        bar("publish, confirmed", "aio-pika", rates(same), ours=False),
    ]
    cost = ratio([each.publisher / each.count for each in same], [each.publisher / each.count for each in ours])
    outcome.notes.append(
        f"aio-pika has {IN_FLIGHT} publishes in flight and runs on uvloop like ours; its messages are made before the "
        f"clock starts. Processor time of the client: aio-pika takes {cost.text('{:.0f}', ' ×')} ours. Where the "
        "broker's time is most of the row, the broker is the limit, not the client."
    )


def seconds(scale: Scale) -> float:
    """About."""
    one = 2 * scale.publish / 30_000 + scale.publish / 2 / 25_000 + 2 * scale.publish_aio_pika / 8_000
    return scale.rounds * (one + 5 * 2.5)


MEASURE = Measure(
    "publish",
    "One process publishes persistent 250-byte messages to a topic exchange bound to a quorum queue and waits for "
    "every confirm. Nobody consumes.",
    seconds,
    run,
)
