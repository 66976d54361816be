"""The whole path, flat out: against the ceiling, and against other libraries that do less."""

from __future__ import annotations

from benchmarks import path, peer
from benchmarks.application import ROWS
from benchmarks.bench import COLUMNS, Bench, Measure, line, rates
from benchmarks.processes import BenchmarkError
from benchmarks.results import Outcome, Row, Table, bar, ratio
from benchmarks.scale import Scale

TARGET_CEILING = 0.6
TARGET_PEERS = 8.0
GROUP = "publish and consume at once"


def run(bench: Bench, outcome: Outcome) -> None:
    """Everything once a round, so that each ratio is of neighbours."""
    scale, broker = bench.scale, bench.broker
    peer.install(bench.say)
    ceiling: list[path.Run] = []
    whole: list[path.Run] = []
    rows: list[path.Run] = []
    peers: dict[str, list[path.Run]] = {each.name: [] for each in peer.PEERS}
    failed: dict[str, str] = {}
    for number in bench.rounds():
        bench.say("path: the ceiling, the lane alone", number)
        ceiling.append(path.lane_alone(broker, scale.lane))
        bench.say("path: the whole path", number)
        whole.append(path.whole_path(broker, scale.path))
        bench.say("path: the whole path, a row of a table of its own as the result", number)
        rows.append(path.whole_path(broker, scale.path, (ROWS,)))
        for each in peer.PEERS:
            if each.name in failed:
                continue
            bench.say(f"path: {each.name}", number)
            try:
                peers[each.name].append(peer.run_peer(broker, each, round(each.count * scale.peer)))
            except BenchmarkError as error:
                failed[each.name] = str(error)
    _report(outcome, ceiling, whole, rows, {name: runs for name, runs in peers.items() if name not in failed})
    versions = peer.versions()
    outcome.notes += [f"{each.name} ({each.package} {versions[each.package]}): {each.tuning}." for each in peer.PEERS]
    outcome.notes += [f"{name} could not be measured: {why.splitlines()[0]}" for name, why in failed.items()]


def _report(
    outcome: Outcome,
    ceiling: list[path.Run],
    whole: list[path.Run],
    rows: list[path.Run],
    peers: dict[str, list[path.Run]],
) -> None:
    ours = [each.rate for each in whole]
    share = ratio(ours, [each.rate for each in ceiling])
    passed = share.median >= TARGET_CEILING
    outcome.rows.append(Row("whole path, of the ceiling", "≥ 0.6", share.text("{:.2f}"), passed))
    lines = [
        line("pipeline: the lane alone (the ceiling)", ceiling),
        line("pipeline: the whole path", whole),
        line("pipeline: the whole path, result in a table of its own", rows),
    ]
    lines += [line(f"{name}: publish, no-op task", runs) for name, runs in peers.items()]
    outcome.tables.append(Table("Publisher and consumer at once, each a process of its own", COLUMNS, lines))
    outcome.bars += [bar(GROUP, "pipeline, whole path", rates(whole)), bar(GROUP, "the lane alone", rates(ceiling))]
    outcome.bars += [bar(GROUP, f"{name}, no-op", rates(runs), ours=False) for name, runs in peers.items()]
    if peers:
        # The fastest of each round: if two are close, the better day of either counts.
        best = [max(runs[number].rate for runs in peers.values()) for number in range(len(ours))]
        faster = ratio(ours, best)
        name = max(peers, key=lambda each: rates(peers[each]).median)
        what = f"whole path, against the fastest other library ({name}) doing nothing"
        outcome.rows.append(Row(what, "≥ 8 ×", faster.text("{:.1f}", " ×"), faster.median >= TARGET_PEERS))
        most = ratio([each.rate for each in ceiling], best)
        outcome.notes.append(
            f"The ceiling, where nothing is decoded, handled or stored, is {most.text('{:.1f}', ' ×')} the fastest "
            "other library: beyond it the broker takes what is left of the cores."
        )


def seconds(scale: Scale) -> float:
    """About."""
    ours = scale.lane / 25_000 + 2 * scale.path / 12_000 + 3 * 5
    return scale.rounds * (ours + len(peer.PEERS) * (10 * scale.peer + 5)) + 5


MEASURE = Measure(
    "path",
    "One process publishes 250-byte events, one process works, flat out. The whole path is: make, validate and encode "
    "the event, publish with confirm, quorum queue, decode and validate, async handler, inbox and result committed to "
    "SQLite (WAL, synchronous=FULL), ack. The ceiling is the lane alone: ready-made messages published and acked "
    "unread. Other libraries do less: their handler does nothing, and nothing is stored.",
    seconds,
    run,
)
