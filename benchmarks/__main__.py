"""`make bench`, or `python -m benchmarks`: measure, show, write down. Exit code 1 when a promised figure was lost.

python -m benchmarks                       everything: about 45 minutes
python -m benchmarks --only path offered   some measures; the others keep the figures of their last run
python -m benchmarks --quick               everything once with tiny counts: does it work? Writes no results
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, peer
from benchmarks.bench import Bench, Progress
from benchmarks.measures import MEASURES
from benchmarks.measures.offered import RATE, TARGET
from benchmarks.place import PROJECT, STATE
from benchmarks.processes import BenchmarkError
from benchmarks.report import markdown, svg, terminal
from benchmarks.results import Outcome, Row, load, save
from benchmarks.scale import FULL, QUICK
from pipeline.broker.locate import find_broker
from pipeline.errors import PipelineError


def main() -> int:
    """Measure what was asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast it is here.")
    parser.add_argument("--quick", action="store_true", help="tiny counts, once: only to see that everything works")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured (3; results say so)")
    wanted = parser.parse_args()
    scale = QUICK if wanted.quick else FULL
    if wanted.rounds:
        scale = replace(scale, rounds=max(1, wanted.rounds))
    chosen = [measure for name, measure in MEASURES.items() if not wanted.only or name in wanted.only]
    folder = STATE / "bench" / "quick" if wanted.quick else PROJECT / "benchmarks"
    kept = load(folder / "results.json")
    progress = Progress([measure.seconds(scale) for measure in chosen])
    found = find_broker(STATE, os.environ, progress.say, PROJECT / "compose.yaml")
    progress.say(f"measuring {', '.join(measure.name for measure in chosen)} on {found.where}")
    peer.install(progress.say)
    bench = Bench(found.address, scale, progress)
    taken = []
    for measure in chosen:
        outcome = Outcome(measure.name, measure.about, taken=machine.taken_on(found.address, peer.versions()))
        began = time.monotonic()
        try:
            measure.run(bench, outcome)
        except BenchmarkError as error:
            outcome.rows.append(Row(f"{measure.name}: could not be measured", "", str(error).splitlines()[0], False))
            print(f"error: {error}", file=sys.stderr)
        progress.next_measure()
        taken.append(outcome)
        kept[measure.name] = outcome
        ordered = {name: kept[name] for name in MEASURES if name in kept}
        save(folder / "results.json", ordered)
        _write(folder, ordered)
        print(f"{terminal.details(outcome)}\n  ({time.monotonic() - began:.0f} s)\n", flush=True)
    print(terminal.summary(taken))
    print(f"\nwritten: {os.path.relpath(folder / 'results.md')}")
    if wanted.quick:
        print("these counts are too small to mean anything")
        return 0
    return int(any(row.passed is False for outcome in taken for row in outcome.rows))


def _write(folder: Path, outcomes: dict[str, Outcome]) -> None:
    (folder / "results.md").write_text(markdown.results(outcomes))
    if every := [bar for outcome in outcomes.values() for bar in outcome.bars]:
        (folder / markdown.THROUGHPUT).write_text(svg.bars("Throughput", every))
    if found := [curve for outcome in outcomes.values() for curve in outcome.curves]:
        title = f"Latency from publish to commit, at offered rates (promised at {RATE:,}/s)"
        (folder / markdown.LATENCY).write_text(svg.curves(title, found, TARGET, 99.0))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchmarkError, PipelineError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
