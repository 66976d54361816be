"""Consume and ack, no handler work, one process: ours against aio-pika."""

from __future__ import annotations

from benchmarks import path
from benchmarks.bench import COLUMNS, Bench, Measure, line, rates
from benchmarks.place import PREFETCH
from benchmarks.results import Outcome, Row, Table, bar, ratio
from benchmarks.scale import Scale

TARGET = 12.0
OURS = "benchmarks.programs.consume"
AIO_PIKA = "benchmarks.programs.aio_pika_consume"
ACK_EVERY = 250


def run(bench: Bench, outcome: Outcome) -> None:
    """Ours once, aio-pika in two ways."""
    scale = bench.scale
    kinds = {
        "pipeline: batches, acked as they come": (OURS, scale.consume, 0),
        "aio-pika: callback, ack each": (AIO_PIKA, scale.consume_aio_pika, 1),
        f"aio-pika: callback, ack every {ACK_EVERY}": (AIO_PIKA, scale.consume_aio_pika, ACK_EVERY),
    }
    runs: dict[str, list[path.Run]] = {kind: [] for kind in kinds}
    for number in bench.rounds():
        for kind, (module, count, every) in kinds.items():
            bench.say(f"consume: {kind}", number)
            runs[kind].append(path.consume(bench.broker, module, count, ack_every=every))
    ours, each_acked, _ = runs.values()
    faster = ratio([each.rate for each in ours], [each.rate for each in each_acked])
    outcome.rows.append(
        Row("consume and ack, against aio-pika", "≥ 12 ×", faster.text("{:.1f}", " ×"), faster.median >= TARGET)
    )
    outcome.tables.append(Table("Consume and ack, one process", COLUMNS, [line(*each) for each in runs.items()]))
    outcome.bars += [
        bar("consume, acked", "pipeline", rates(ours)),
        bar("consume, acked", "aio-pika", rates(each_acked), ours=False),
    ]
    cost = ratio([each.consumer / each.count for each in each_acked], [each.consumer / each.count for each in ours])
    outcome.notes.append(
        f"Processor time of the client: aio-pika takes {cost.text('{:.0f}', ' ×')} ours. The broker is the limit: one "
        "quorum queue is one process in it, and hands out no more."
    )
    outcome.notes.append(
        f"Prefetch is {PREFETCH:,} for both, both run on uvloop. Acking each message is what aio-pika's documentation "
        "shows, and what a handler that may fail needs; ours settles each delivery by itself, too, and sends one "
        "ack for what is settled in a row."
    )


def seconds(scale: Scale) -> float:
    """About."""
    filling = (scale.consume + 2 * scale.consume_aio_pika) / 28_000
    return scale.rounds * (filling + scale.consume / 80_000 + 1.5 * scale.consume_aio_pika / 6_000 + 3 * 3.5)


MEASURE = Measure(
    "consume",
    "One process consumes and acks 250-byte messages that wait in a quorum queue. Nobody publishes. The clock runs "
    "from the request to consume to the last ack.",
    seconds,
    run,
)
